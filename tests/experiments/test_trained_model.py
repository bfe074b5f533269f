"""The report of a trained model: its parts, its page, its conditions."""

import json
import re
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest

from attnflow.experiments import trained_model
from attnflow.experiments.trained_model import Config

SMALL = Config(tokens=48)


@pytest.fixture(scope="module")
def small():
    return trained_model.run(SMALL)


def test_first_block_is_the_assumptions(small):
    lines = trained_model.summary(small).splitlines()
    assert lines[2] == "What theory assumes, and"
    assert any(line.startswith("  fails: one set of weights for all layers") for line in lines)
    assert "norm scheme recognised (post)" in small.attrs["holds"]


def test_controls(small):
    """A repeated token enters with nearly one direction but for positions; a random twin is no trained model."""
    entry = small.isel(layer=0).control_cosine
    assert entry.sel(control="repeated") > entry.sel(control="shuffled") + 0.3
    assert not np.allclose(
        small.control_cosine.sel(control="random-init"), small.mean_cosine, atol=0.05
    )


def test_theory_starts_at_the_measured_entry(small):
    for name in ("aligned_cosine", "random_cosine"):
        assert float(small[name][0]) == pytest.approx(float(small.mean_cosine[0]), abs=1e-9)
        assert (np.diff(small[name]) > 0).all()


def test_page_is_one_file_and_its_texts_are_data(small):
    hostile = small.assign_attrs(
        source="<script>alert(1)</script>", fails=["<img src=x onerror=alert(1)>"]
    )
    html = trained_model.page(hostile, trained_model.draw(small))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert re.findall(r"<img (\w+)", html) == ["alt"]
    assert "http" not in re.sub(r'http-equiv|base64,[^"]*', "", html)
    assert "default-src 'none'" in html


def test_draw_and_numbers(small):
    assert isinstance(trained_model.draw(small), matplotlib.figure.Figure)
    json.dumps(trained_model.numbers(small), allow_nan=False)


def test_conditions(small):
    rho = float(small.mean_cosine[-1])
    assert trained_model.failures(small, f"rho>{rho + 0.01}@last") == []
    (text,) = trained_model.failures(small, f"rho>{rho - 0.01}@last")
    assert text.startswith(f"rho is {rho:.4g} at layer 6")
    assert len(trained_model.failures(small, "rank<1000@any, rho<2@0")) == 8
    for bad in ("rho", "rho>x@last", "loss>1@last", "rho>0.5@99"):
        with pytest.raises(ValueError, match="`fail_on` must"):
            trained_model.failures(small, bad)


def test_saved_states_are_enough(small, tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 30, 16))
    np.savez(tmp_path / "x.npz", x=x)
    data = trained_model.run(Config(model=str(tmp_path / "x.npz")))
    assert data.sizes["layer"] == 4
    assert isinstance(trained_model.draw(data), matplotlib.figure.Figure)
    trained_model.summary(data)


def test_command_line(tmp_path):
    x = np.repeat(np.random.default_rng(0).normal(size=(3, 1, 8)), 20, axis=1)
    np.savez(tmp_path / "x.npz", x=x + 1e-3 * np.random.default_rng(1).normal(size=x.shape))
    call = [
        sys.executable,
        "-m",
        "attnflow.cli",
        "probe",
        str(tmp_path / "x.npz"),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run([*call, "--fail-on", "rho>0.9@last"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "rho is 1 at layer 2" in done.stderr
    page = re.search(r"page: +(\S+)", done.stdout)
    assert page is not None
    assert (tmp_path / page[1]).read_text().startswith("<!doctype html>")
    done = subprocess.run([*call, "--fail-on", "rho<0.5@last"], capture_output=True, text=True)
    assert done.returncode == 0
    done = subprocess.run(
        [*call[:4], "nowhere", "--out", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "is no folder" in done.stderr


def test_bad_text(tmp_path):
    with pytest.raises(ValueError, match="readable text file"):
        trained_model.run(Config(text=str(tmp_path / "none.txt")))
