"""`attnflow verify`: every claim, predicted and observed."""

from __future__ import annotations

from attnflow.commands.parsing import parse, print_json


def main(argv: list[str]) -> int:
    """`attnflow verify`."""
    return parse(verify, argv, "attnflow verify")


def verify(only: str = "", json: bool = False, quiet: bool = False) -> int:
    """Every claim: predicted, observed, error, tolerance, verdict. Exit code 1 if any fails.

    Args:
        only: Check only claims whose name holds this text.
        json: Print JSON.
        quiet: No progress.
    """
    import jax
    from tqdm import tqdm

    from attnflow import claims
    from attnflow.errors import check_choice

    jax.config.update("jax_enable_x64", True)
    chosen = [claim for name, claim in claims.CLAIMS.items() if only in name]
    if not chosen:
        check_choice(only, "only", claims.CLAIMS)
    verdicts = [claims.evaluate(claim) for claim in tqdm(chosen, disable=quiet, unit="claim")]
    if json:
        print_json(claims.to_json(verdicts))
    else:
        print(claims.table(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else 1
