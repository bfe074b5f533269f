"""Words of a command line to arguments of a function or fields of dataclasses."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import sys
from typing import Any


def parse(wanted: Any, argv: list[str], prog: str, description: str | None = None) -> Any:
    """Call a function, or fill dataclasses, from the command line; a parse error is a `ValueError`."""
    import tyro

    errors, style = io.StringIO(), (tyro.conf.OmitArgPrefixes, tyro.conf.PositionalRequiredArgs)
    stderr, target = sys.stderr, wanted
    if not isinstance(wanted, type):

        @functools.wraps(wanted)
        def target(*args: Any, **options: Any) -> Any:
            with contextlib.redirect_stderr(stderr):  # what the function says is no parse error
                return wanted(*args, **options)

    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(target, args=argv, prog=prog, description=description, config=style)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(errors.getvalue(), prog)) from None


def _one_line(message: str, prog: str) -> str:
    """What a many-line parse error, boxed or not, says and suggests, as one sentence."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]|-{4,}", "", message)
    _title, *lines = [line.strip() for line in plain.strip().splitlines()]
    said = re.split(r"\n\n", "\n".join(lines).strip(), maxsplit=1)[0].replace("\n", " ").rstrip(".")
    near = re.search(r"Perhaps you meant:\s*(--\S+)", " ".join(lines))
    hint = f" Did you mean {near.group(1)}?" if near else ""
    return f"{said[:1].upper()}{said[1:]}.{hint} See `{prog} --help`."


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=1))
