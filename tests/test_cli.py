"""The command line: answers in time, one line for every error, nothing lost when killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import attnflow
from attnflow import store
from attnflow.cli import main

QUICK = ["run", "simulate", "--n", "8", "--t-max", "3", "--saves", "9", "--beta", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert main([*QUICK, "--out", str(root), "--quiet"]) == 0
    return root


def test_a_run_keeps_numbers_and_a_picture(root, capsys):
    (run,) = store.list_runs(root)
    assert (run.folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (run.folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    record = store.read_config(run.folder)
    assert record["config"]["beta"] == 1.0 and record["provenance"]["dtype"] == "float64"


def test_the_second_time_is_instant_and_says_so(root, capsys):
    (before,) = root.glob("simulate-*/config.json")
    stamp = before.stat().st_mtime_ns
    assert main([*QUICK, "--out", str(root)]) == 0
    out, err = capsys.readouterr()
    assert before.stat().st_mtime_ns == stamp
    assert "is there already" in err and "figure.png" in out


def test_results_on_stdout_progress_on_stderr(tmp_path, capfd):
    assert main([*QUICK, "--out", str(tmp_path), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["numbers"]["clusters"] and "simulate:" in err


def test_list_and_show(root, capsys):
    assert main(["list", "--out", str(root), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert main(["show", run["name"][:12], "--out", str(root)]) == 0
    assert "wall_time" in capsys.readouterr().out


def test_help_names_every_command_and_experiment(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("run", "list", "show", "verify", "phase-diagram"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runn"], "Did you mean 'run'?"),
        (["run", "simulat"], "Did you mean 'simulate'?"),
        (["run", "simulate", "--bta", "3"], "Did you mean --beta?"),
        (["run", "simulate", "--n", "many"], "--n"),
        (["run", "simulate", "--beta", "nan"], "beta"),
        (["run", "simulate", "--d", "1"], "d=1"),
        (["run", "simulate", "--tokens", "x.npy", "--n", "0"], "n=0"),
        (["probe", "-x"], "must come first"),
        (["probe", "minilm", "--fail-on", "rho>"], "`fail_on` must"),
        (["run", "simulate", "--method", "nan"], "attnflow: Invalid choice"),
        (["run", "simulate", "--flow", "saa"], "Did you mean 'sa'?"),
        (["run", "simulate", "--tokens", "digts"], "Did you mean 'digits'?"),
        (["run", "simulate", "--tokens", "nowhere.npy"], "must name a file"),
        (["run", "simulate", "--method", "leapfrog"], "--method"),
        (["run", "simulate", "--processes", "0"], "processes=0"),
        (["run", "staircase", "--processes", "2"], "--processes"),
        (["show", "simulate-00000000"], "simulate-00000000"),
        (["verify", "--only", "no such claim"], "`only`"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(words, message, tmp_path, capsys):
    where = ["--out", str(tmp_path)] if words[0] in ("run", "show") and len(words) > 2 else []
    assert main([*words, *where]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("attnflow: ") and message in err


def test_a_bad_file_is_one_line(tmp_path, capsys):
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1.0, {}]], dtype=object), allow_pickle=True)
    assert main(["run", "simulate", "--tokens", str(path), "--out", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert "never loaded" in err and err.count("\n") == 1


def test_a_folder_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "runs").write_text("")
    assert main([*QUICK, "--out", str(tmp_path / "runs")]) == 2
    assert "must be a writable folder" in capsys.readouterr().err


def test_a_run_of_a_newer_version_is_one_line(root, tmp_path, capsys):
    (run,) = root.glob("simulate-*")
    shutil.copytree(run, tmp_path / run.name)
    config = tmp_path / run.name / "config.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 99'))
    assert main(["show", run.name, "--out", str(tmp_path)]) == 2
    assert "pgrade attnflow" in capsys.readouterr().err


def test_debug_shows_where_an_error_comes_from(tmp_path):
    with pytest.raises(ValueError, match="`d`"):
        main(["run", "simulate", "--d", "1", "--out", str(tmp_path), "--debug"])


@pytest.mark.parametrize(
    ("words", "light"), [([], True), (["list"], True), (["run", "simulate", "--help"], False)]
)
def test_light_commands_import_little(words, light, tmp_path):
    code = (
        "import sys; from attnflow.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "print([m for m in ('jax', 'matplotlib', 'xarray', 'scipy', 'sklearn') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr.strip().splitlines()[-1] == "[]"


def _child(root: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "attnflow.cli", *QUICK[:4], "--t-max", "40", "--saves", "97"]
    return subprocess.Popen(
        [*command, "--beta", "1", "--out", str(root), "--quiet", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=root.parent,
        env={**os.environ, "PYTHONPATH": str(Path(attnflow.__file__).parents[1])},
    )  # fmt: skip


def test_killed_runs_leave_no_half_result_and_resume_to_the_same_bits(tmp_path):
    """One kill at the first checkpoint, then at random moments; ATTNFLOW_KILLS=100 makes it the long campaign."""
    rng, kills = random.Random(0), int(os.environ.get("ATTNFLOW_KILLS", "2"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for root in (whole, broken):
        root.mkdir()
    started = time.monotonic()
    assert _child(whole).wait() == 0
    duration = time.monotonic() - started
    (run,) = store.list_runs(whole)
    expected = store.load(run.folder)
    resumed = 0
    kept = lambda: bool(list(broken.glob(".partial/*/*.npz")))
    while kills > 0 or not store.list_runs(broken):
        resumed += kept()
        child = _child(broken, "--resume")
        if kills > 0:
            while resumed == 0 and not kept() and child.poll() is None:
                time.sleep(0.01)
            if resumed > 0:
                time.sleep(rng.uniform(0.3, 1.0) * duration)
            child.send_signal(signal.SIGKILL)
            kills -= child.wait() == -signal.SIGKILL
        else:
            assert child.wait() == 0
        for found in store.list_runs(broken):
            assert found.problem == "" and store.load(found.folder).identical(expected)
            if kills > 0:
                shutil.rmtree(found.folder)
    assert resumed > 0
