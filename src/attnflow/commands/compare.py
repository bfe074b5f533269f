"""`attnflow compare`: two trained models on one text."""

from __future__ import annotations

from typing import Any

from attnflow.commands.parsing import parse


def main(argv: list[str]) -> int:
    """`attnflow compare A B`."""
    return parse(compare, argv, "attnflow compare")


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
