"""The command line: results on stdout, progress on stderr, one sentence for every error."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

from attnflow import launch
from attnflow.commands import COMMANDS, load

USAGE = """\
usage: attnflow COMMAND ...

Attention dynamics: simulate Transformer tokens as particles on the sphere,
beside what theory predicts for them.

commands:
{commands}

experiments:
{experiments}

`attnflow COMMAND --help` and `attnflow run EXPERIMENT --help` tell the rest.
Errors are one line, exit code 2; --debug shows where they come from.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (a claim failed), 2 (bad input), 130 or 141 (cut off)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        print("attnflow: interrupted. Run again with --resume to continue.", file=sys.stderr)
        return _leave(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if debug and not _others():
            raise
        return _leave(_say(error, debug))


def _say(error: Exception, debug: bool) -> int:
    """Print an error in one line, and give its exit code."""
    text, others = " ".join(str(error).split()), _others()
    if others and debug:
        traceback.print_exception(error)
    if others and others.lost_peer(error):
        if launch.on_leash():
            return launch.LOST
        text = f"Another process is gone ({text[:80]} ...). {launch.REMEDY}"
    print(f"attnflow: {text}", file=sys.stderr)
    return 2


def _others() -> Any:
    """Module that speaks with other processes, if this one has joined some."""
    module = sys.modules.get("attnflow.distributed")
    return module if module is not None and module.joined() else None


def _leave(code: int) -> int:
    """Exit code, unless there are other processes, which would wait: then leave at once."""
    if others := _others():
        others.leave(code)
    return code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        from attnflow.experiments import EXPERIMENTS

        print(USAGE.format(commands=_rows(COMMANDS), experiments=_rows(EXPERIMENTS)), end="")
        return 0
    if argv[0] == "--version":
        from attnflow import __version__

        print(f"attnflow {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        from attnflow.errors import check_choice

        check_choice(argv[0], "command", COMMANDS)
    return load(argv[0]).main(argv[1:])


def _rows(lines: dict[str, str]) -> str:
    return "\n".join(f"  {name:<16} {line}" for name, line in lines.items())


if __name__ == "__main__":
    sys.exit(main())
