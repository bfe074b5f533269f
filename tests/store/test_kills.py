"""Real SIGKILLs; `kills.py` does the work in a process without JAX, which must not be forked."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("kills.py")


def run(mode, root):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, mode, root],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_100_kills_at_random_leave_whole_runs_and_checkpoints(tmp_path):
    """The counts say that the kills fell into saves, and that saves also came through."""
    hit = run("random", tmp_path / "runs")
    assert hit["saving"] >= 20
    assert hit["saved"] >= 5


def test_a_kill_before_any_change_leaves_the_old_run_or_the_new(tmp_path):
    hit = run("each", tmp_path / "runs")
    assert hit["replace"] > hit["checkpoint"] > 10
    assert hit["finish"] > 40


def test_a_crowd_on_one_run_leaves_one_whole_run(tmp_path):
    hit = run("crowd", tmp_path / "runs")
    assert hit["reads"] == 120
    assert hit["generations"] > 1
