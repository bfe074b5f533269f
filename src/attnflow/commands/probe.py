"""`attnflow probe`: a trained model on a text, with an exit code for CI."""

from __future__ import annotations

import sys
from pathlib import Path

from attnflow.commands import run
from attnflow.commands.parsing import parse

USAGE = """\
usage: attnflow probe MODEL [--text FILE] [--fail-on CONDITION] [options of `attnflow run trained-model`]

MODEL is a folder of a checkpoint with *.safetensors, minilm, or saved states (.npz, .safetensors).
CONDITION is like rho>0.9@last or rank<10@any,rho>0.8@6; if one is true, the exit code is 1.
"""


def main(argv: list[str]) -> int:
    """`attnflow probe MODEL ...`; exit code 1 if a condition of --fail-on is true."""
    if not argv or argv[0] in ("-h", "--help") or argv[0].startswith("-"):
        print(USAGE, end="")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    model, *rest = argv
    condition = ""
    if "--fail-on" in rest:
        at = rest.index("--fail-on")
        if at + 1 == len(rest):
            raise ValueError(
                "Argument `fail_on` must be a condition like 'rho>0.9@last', but none follows."
            )
        condition = rest[at + 1]
        del rest[at : at + 2]
    code = run.main(["trained-model", "--model", model, *rest])
    if not condition or code:
        return code
    from attnflow import store
    from attnflow.experiments import trained_model

    out = Path(rest[rest.index("--out") + 1]) if "--out" in rest else Path("runs")
    plain = [word for word in rest if word not in ("--json", "--quiet", "--force", "--resume")]
    if "--out" in plain:
        at = plain.index("--out")
        del plain[at : at + 2]
    config = parse(trained_model.Config, ["--model", model, *plain], "attnflow probe")
    data = store.load(store.folder_of("trained-model", trained_model.resolve(config), out))
    found = trained_model.failures(data, condition)
    for text in found:
        print(f"attnflow: {text}", file=sys.stderr)
    return 1 if found else 0
