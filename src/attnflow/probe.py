"""The commands `attnflow probe` and `attnflow compare`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

USAGE = """\
usage: attnflow probe MODEL [--text FILE] [--fail-on CONDITION] [options of `attnflow run trained-model`]

MODEL is a folder of a checkpoint with *.safetensors, minilm, or saved states (.npz, .safetensors).
CONDITION is like rho>0.9@last or rank<10@any,rho>0.8@6; if one is true, the exit code is 1.
"""


def run(argv: list[str], make: Callable[[list[str]], int], parse: Callable) -> int:
    """Probe a model; exit code 1 if a condition of --fail-on is true.

    Args:
        argv: Words after `probe`.
        make: Runs the experiment with its options.
        parse: Reads a dataclass from words.
    """
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
    code = make(["--model", model, *rest])
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


def compare(a: str, b: str, text: str = "", tokens: int = 512) -> int:
    """Two models on one text, side by side.

    Args:
        a: Folder of a checkpoint, minilm, or saved states.
        b: The other one.
        text: Text file; empty takes the descriptions of scikit-learn's data sets.
        tokens: Largest number of tokens.
    """
    from attnflow.experiments import trained_model as experiment

    one, other = (
        experiment.run(experiment.Config(model=model, text=text, tokens=tokens, controls=False))
        for model in (a, b)
    )
    print(_beside(one, other))
    return 0


def _beside(one: Any, other: Any) -> str:
    """Table of two probes over layers."""
    lines = [f"{'':>5}{one.attrs['source'][-34:]:>36}{other.attrs['source'][-34:]:>36}"]
    names = f"{'rho':>9}{'rank':>9}{'clusters':>9}{'entropy':>9}"
    lines.append(f"{'layer':>5}{names}{names}")
    for k in range(max(one.sizes["layer"], other.sizes["layer"])):
        cells = ""
        for data in (one, other):
            if k >= data.sizes["layer"]:
                cells += " " * 36
                continue
            row = data.isel(layer=k)
            entropy = (
                f"{float(data.entropy[k - 1].mean()):>9.3f}" if k and "entropy" in data else " " * 9
            )
            cells += f"{float(row.mean_cosine):>9.4f}{float(row.effective_rank):>9.1f}{int(row.clusters):>9}{entropy}"
        lines.append(f"{k:>5}{cells}")
    return "\n".join(lines)
