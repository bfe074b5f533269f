"""`attnflow probe`: a trained model on a text, with an exit code for CI."""

from __future__ import annotations

import sys
from dataclasses import make_dataclass

from attnflow.commands import run
from attnflow.commands.parsing import parse

USAGE = """\
usage: attnflow probe MODEL [--text FILE] [--fail-on CONDITION] [options of `attnflow run trained-model`]

MODEL is a folder of a checkpoint with *.safetensors, minilm, or saved states (.npz, .safetensors).
CONDITION is like rho>0.9@last or rank<10@any,rho>0.8@6; if one is true, the exit code is 1.
"""


def main(argv: list[str]) -> int:
    """`attnflow probe MODEL ...`; exit code 1 if a condition of --fail-on is true."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    model, *rest = argv
    if model.startswith("-"):
        raise ValueError(
            f"Argument `model` must come first, but model={model!r}. See `attnflow probe --help`."
        )
    condition = ""
    if "--fail-on" in rest:
        at = rest.index("--fail-on")
        if at + 1 == len(rest):
            raise ValueError(
                "Argument `fail_on` must be a condition like 'rho>0.9@last', but none follows."
            )
        condition = rest[at + 1]
        del rest[at : at + 2]
    words = ["--model", model, *rest]
    if not condition:
        return run.main(["trained-model", *words])

    from attnflow import store
    from attnflow.experiments import trained_model

    trained_model.read_conditions(condition)
    parts = [("config", trained_model.Config), ("output", run.Output)]
    given = parse(make_dataclass("Probe", parts), words, "attnflow probe")
    if code := run.main(["trained-model", *words]):
        return code
    config = trained_model.resolve(given.config)
    data = store.load(store.folder_of("trained-model", config, given.output.out))
    found = trained_model.failures(data, condition)
    for text in found:
        print(f"attnflow: {text}", file=sys.stderr)
    return 1 if found else 0
