"""`attnflow doctor`: what is installed, what it runs on, and whether it computes rightly."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from attnflow.commands.parsing import parse, print_json


def main(argv: list[str]) -> int:
    """`attnflow doctor`."""
    return parse(doctor, argv, "attnflow doctor")


def doctor(out: Path = Path("runs"), json: bool = False, quick: bool = False) -> int:
    """Versions, devices, float64, optional parts, run folder, self-test. Exit code 1 if a check fails.

    Args:
        out: Folder of all runs.
        json: Print JSON.
        quick: No self-test, which takes about a minute.
    """
    import jax

    from attnflow.commands import checkup

    flag = bool(jax.config.read("jax_enable_x64"))
    jax.config.update("jax_enable_x64", True)
    facts = {
        "versions": checkup.versions(),
        "machine": checkup.machine(),
        "float64 by default": "yes"
        if flag
        else "no: `attnflow` switches it on, your own scripts must",
        "optional parts": checkup.optional_parts(),
    }
    checks = [checkup.float64(), checkup.folder(out)]
    if not quick:
        for name in checkup.SELF_TEST:
            print(f"\rattnflow: {name:<50}", end="", file=sys.stderr, flush=True)
            checks.append(checkup.tried(name))
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    failed = [check.name for check in checks if check.verdict == "FAIL"]
    if json:
        print_json({**facts, "checks": [asdict(check) for check in checks], "ok": not failed})
    else:
        print(_told(facts))
        print("\n".join(f"{c.verdict:<8}{c.name:<34}{c.seconds:6.1f} s  {c.said}" for c in checks))
        print(f"\n{'all is well' if not failed else f'{len(failed)} failed: ' + ', '.join(failed)}")
    return 1 if failed else 0


def _told(facts: dict[str, dict[str, str] | str]) -> str:
    """Facts as text."""
    lines = []
    for title, values in facts.items():
        if isinstance(values, str):
            lines += [f"{title}: {values}", ""]
            continue
        lines += [f"{title}:", *(f"  {name:<16} {value}" for name, value in values.items()), ""]
    return "\n".join(lines)
