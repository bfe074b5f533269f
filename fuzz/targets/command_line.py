"""Words of the command line: every command with good, odd and hostile ones, in this process, in an empty folder."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attnflow.experiments import EXPERIMENTS
from fuzz.values import Target, choice

ODD_WORDS = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "-0.0",
    "1e-320",
    "1e5000",
    "-1e308",
    "0x10",
    "1_000",
    "None",
    "True",
    "",
    " ",
    "many",
    "ü\u202e",
    "a\nb",
    "[1]",
    "{}",
    "'",
    "--",
    "-",
    "-x",
    "--help=1",
    "..",
    "/",
    "/dev/null",
    "/proc/1",
    "nowhere/at/all",
    "~",
    "%s",
    "$HOME",
    "*",
    "a" * 300,
    "simulate-00000000",
    "<b>x</b>",
    "1,2",
    "1:2",
)
HUGE = ("1e308", "99999999999999999999", "1e17")
odd_words = st.one_of(
    choice(*ODD_WORDS), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
)
FILES = (
    "x.npy",
    "pickle.npy",
    "empty.npy",
    "words.csv",
    "x.csv",
    "states.npz",
    "binary.safetensors",
    "folder",
    "text.txt",
)


@cache
def root() -> Path:
    """A folder with runs, files and damaged files, made once in each process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3))
    np.save(folder / "x.npy", x / np.linalg.norm(x, axis=1, keepdims=True))
    np.save(folder / "pickle.npy", np.array([{}, None], object), allow_pickle=True)
    (folder / "empty.npy").write_bytes(b"")
    (folder / "words.csv").write_text("a,b\nc\n")
    np.savetxt(folder / "x.csv", x, delimiter=",")
    np.savez(folder / "states.npz", **{f"layer{k}": rng.normal(size=(6, 4)) for k in range(3)})
    (folder / "binary.safetensors").write_bytes(bytes(range(256)))
    (folder / "folder").mkdir()
    (folder / "folder" / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "text.txt").write_text("One two three.\n" * 3)
    from attnflow.cli import main

    os.chdir(folder)
    words = ["run", "simulate", "--n", "5", "--d", "2", "--t-max", "2", "--saves", "5", "--quiet"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(words) == 0
    return folder


def command(**words: Any) -> str | None:
    """Run `attnflow`: exit code 0 or 1 with an answer, or 2 with one sentence on stderr."""
    from attnflow.cli import main

    os.chdir(root())
    argv, out, err = argv_of(words), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as stop:
            code = stop.code or 0
    said, complained = out.getvalue(), err.getvalue()
    assert "Traceback" not in said + complained, complained
    assert code in (0, 1, 2), f"exit code {code}"
    if code != 2:
        assert said or "attnflow: " in complained, "said nothing"
        return None
    sentences = [line for line in complained.splitlines() if line.startswith("attnflow: ")]
    unforeseen = argv[:1] == ["probe"] and "a layer below" in complained  # known once it has run
    assert not said or unforeseen, f"stdout holds {said[:80]!r}"
    assert len(sentences) == 1 and complained.endswith(sentences[0] + "\n"), f"{complained[:200]!r}"
    text = sentences[0].removeprefix("attnflow: ")
    assert text[:1].isupper() or text[:1] in "`/<'-" or text[:1] == "'", f"no sentence: {text}"
    assert text[-1] in ".?", f"no sentence: {text}"
    return text


def argv_of(words: dict[str, Any]) -> list[str]:
    """Words of a case: options that are None are left out, True is a flag."""
    argv = []
    for name, value in words.items():
        if name.startswith("word"):
            argv += [] if value is None else [value]
        elif value is True:
            argv.append(f"--{name.replace('_', '-')}")
        elif value is not None:
            argv += [f"--{name.replace('_', '-')}", value]
    return argv


def resolve(experiment: str, name: str, value: str) -> str | None:
    """Settings of an experiment, one of them spoiled, are read and settled, or refused, before any run."""
    from attnflow import store
    from attnflow.commands.parsing import parse
    from attnflow.experiments import load

    os.chdir(root())
    module = load(experiment)
    fields = sorted(module.Config.__dataclass_fields__)
    field = fields[sum(map(ord, name)) % len(fields)]
    try:
        config = module.resolve(
            parse(module.Config, [f"--{field.replace('_', '-')}", value], "attnflow run")
        )
    except SystemExit as stop:
        assert not stop.code
        return None
    except (ValueError, OSError, ImportError) as error:
        text = str(error)
        assert text[-1] in ".?" and "\n" not in text.strip(), f"no sentence: {text!r}"
        return text
    assert len(store.fingerprint(experiment, config)) == 64
    return None


def flag() -> st.SearchStrategy:
    """A flag, set or not."""
    return choice(True, None)


def option(*values: str) -> st.SearchStrategy:
    """An option with one of its values, or without."""
    return choice(None, *values)


RARE = (
    "rtol",
    "atol",
    "cosine",
    "value",
    "t_min",
    "state_saves",
    "kernel_sum",
    "seed",
    "dtype",
    "tau",
    "alpha",
    "rate",
    "k",
    "spread",
    "rho",
    "concentration",
    "array",
    "clock",
)
"""Options of `attnflow run simulate` of which one is spoiled at a time."""
TARGETS = {
    "attnflow": Target(
        command,
        {"word": choice("list", "--version", "--help", "runn", "-h", ""), "word2": choice(None)},
        0.8,
        {"word": odd_words, "word2": odd_words},
    ),
    "attnflow run simulate": Target(
        command,
        {
            "word": choice("run"),
            "word2": choice("simulate"),
            "n": choice("5"),
            "d": choice("2"),
            "t_max": choice("2"),
            "saves": choice("5"),
            "beta": option("1"),
            "flow": option("usa"),
            "norm": choice(None),
            "tokens": option("x.npy"),
            "quiet": choice(True),
            "out": choice("runs"),
        },
        3,
        {
            "word": None,
            "word2": None,
            "quiet": None,
            "n": odd_words,
            "d": odd_words,
            "t_max": odd_words,
            "saves": odd_words,
            "beta": st.one_of(odd_words, choice(*HUGE)),
            "flow": odd_words,
            "norm": odd_words,
            "tokens": st.one_of(odd_words, choice(*FILES)),
            "out": odd_words,
        },
    ),
    "attnflow run simulate, rarer": Target(
        command,
        {
            "word": choice("run"),
            "word2": choice("simulate"),
            "n": choice("5"),
            "t_max": choice("2"),
            "saves": choice("5"),
            "json": choice(True),
            "quiet": choice(True),
            "method": option("layers"),
            "dt": choice("0.5"),
            "processes": choice(None),
            **{name: choice(None) for name in RARE},
        },
        2,
        {
            **dict.fromkeys(("word", "word2", "json", "quiet", "n", "t_max", "saves")),
            **dict.fromkeys(("processes", "method", "dt", *RARE), odd_words),
        },
    ),
    "attnflow list": Target(
        command,
        {"word": choice("list"), "out": choice("runs"), "json": flag()},
        0.8,
        {"word": None, "json": None, "out": odd_words},
    ),
    "attnflow show": Target(
        command,
        {
            "word": choice("show"),
            "word2": choice("simulate", "sim"),
            "out": choice("runs"),
            "json": flag(),
        },
        1.2,
        {"word": None, "json": None, "word2": odd_words, "out": odd_words},
    ),
    "attnflow view": Target(
        command,
        {
            "word": choice("view"),
            "word2": choice("simulate", "s"),
            "out": choice("runs"),
            "page": option("page.html"),
            "force": flag(),
            "max_tokens": option("4"),
            "max_frames": option("2"),
            "color": option("x.csv"),
        },
        1.2,
        {
            "word": None,
            "force": None,
            "word2": odd_words,
            "out": odd_words,
            "page": odd_words,
            "max_tokens": odd_words,
            "max_frames": odd_words,
            "color": st.one_of(odd_words, choice(*FILES)),
        },
    ),
    "attnflow verify": Target(
        command,
        {
            "word": choice("verify"),
            "only": choice("theorem-hemisphere-rate", "gram-gaps"),
            "json": flag(),
            "quiet": choice(True),
        },
        0.5,
        {
            "word": None,
            "json": None,
            "quiet": None,
            "only": odd_words.filter(lambda word: len(word) > 3),
        },
    ),
    "attnflow probe": Target(
        command,
        {
            "word": choice("probe"),
            "word2": choice("states.npz"),
            "fail_on": option("rho>0.9@last", "rank<1@any"),
            "quiet": choice(True),
        },
        1,
        {
            "word": None,
            "quiet": None,
            "word2": st.one_of(odd_words, choice(*FILES)),
            "fail_on": st.one_of(
                odd_words,
                choice("rho>", "rho>x@last", "rho>0.9@99", "rho>nan@last", "rho>0.9@-1", "rank<1"),
            ),
        },
    ),
    "attnflow compare": Target(
        command,
        {
            "word": choice("compare"),
            "word2": choice("states.npz"),
            "word3": choice("states.npz"),
            "tokens": option("4"),
        },
        0.6,
        {
            "word": None,
            "word2": st.one_of(odd_words, choice(*FILES)),
            "word3": st.one_of(odd_words, choice(*FILES)),
            "tokens": odd_words,
        },
    ),
    "attnflow scale": Target(
        command,
        {
            "word": choice("scale"),
            "word2": odd_words.filter(lambda w: w),
            "lengths": option("64", "nan", "-1", "0", "1e400"),
        },
        0.5,
        {"word": None, "word2": choice(*FILES), "lengths": odd_words},
    ),
    "attnflow doctor": Target(
        command,
        {"word": choice("doctor"), "out": choice("runs"), "json": flag(), "quick": choice(True)},
        0.5,
        {"word": None, "json": None, "quick": None, "out": odd_words},
    ),
    "attnflow run, settings": Target(
        resolve,
        {
            "experiment": choice(*EXPERIMENTS),
            "name": st.text("abcdefghijklmnop", max_size=3),
            "value": choice("1", "2"),
        },
        4,
        {
            "experiment": None,
            "name": None,
            "value": st.one_of(odd_words, choice(*HUGE), choice(*FILES)),
        },
    ),
}
