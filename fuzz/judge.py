"""How a case ended: an answer that holds, one sentence in our voice, or a finding."""

from __future__ import annotations

import re
import signal
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.values import Target

SENTENCE = re.compile(
    r"(Argument `.+` must .+|The run of .+|Run .+|There is no .+|.+ needs about .+ GiB.+|Probing .+)[.?]",
    re.DOTALL,
)
ERRORS = (ValueError, TypeError, OSError, MemoryError, RuntimeError, ImportError)
SOURCE = str(Path(__file__).parents[1] / "src" / "attnflow")


class Hang(BaseException):
    """The time of a case is up; no `Exception`, so that nothing on the way swallows it."""


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    target: str
    kind: str
    """answer, sentence or finding."""
    call: str
    """The call, as Python writes it."""
    text: str = ""
    """The sentence, or what went wrong."""
    place: str = ""
    """Where a finding was raised."""
    seconds: float = 0.0


def judge(name: str, target: Target, arguments: dict[str, Any], limit: float) -> Outcome:
    """Run one case, and say how it ended."""
    call = written(name, arguments)
    started = time.monotonic()
    kind, text, place = _ends(target, arguments, limit)
    return Outcome(name, kind, call, text, place, time.monotonic() - started)


def written(name: str, arguments: dict[str, Any]) -> str:
    """A case as a call."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def is_sentence(text: str) -> bool:
    """Whether a message is one line in our voice."""
    return "\n" not in text and SENTENCE.fullmatch(text) is not None


def _ends(target: Target, arguments: dict[str, Any], limit: float) -> tuple[str, str, str]:
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            said = target.function(**arguments)
        return ("sentence", said, "") if isinstance(said, str) else ("answer", "", "")
    except Hang:
        return "finding", f"not done after {limit:g} s", "hang"
    except ERRORS as error:
        kind = "sentence" if is_sentence(str(error)) else "finding"
        return kind, f"{type(error).__name__}: {error}"[:500], _place(error)
    except Exception as error:
        return "finding", f"{type(error).__name__}: {error}"[:500], _place(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ring(number: int, frame: Any) -> None:
    raise Hang


def _place(error: BaseException) -> str:
    """Last line of the library, or else of all, that an error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(SOURCE)]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).relative_to(SOURCE) if ours else Path(frame.filename).name}:{frame.lineno}"
