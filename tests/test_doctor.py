"""`attnflow doctor` says what is there, what is missing, and whether it computes; it never crashes."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import attnflow
from attnflow import claims, kernels
from attnflow.cli import main
from attnflow.commands import checkup


def report(capsys, *words):
    code = main(["doctor", "--json", *words])
    said = json.loads(capsys.readouterr().out)
    return code, said, {check["name"]: check for check in said["checks"]}


def test_quick_tells_versions_devices_parts_and_the_folder(tmp_path, capsys):
    code, said, checks = report(capsys, "--quick", "--out", str(tmp_path / "runs"))
    assert code == 0 and said["ok"]
    assert said["versions"]["attnflow"] == attnflow.__version__
    assert said["versions"]["numpy"] == np.__version__
    assert {"devices", "memory", "cores", "threads"} <= said["machine"].keys()
    assert said["optional parts"].keys() == checkup.OPTIONAL.keys()
    assert checks.keys() == {"float64", "run folder"}
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_text_names_every_part(tmp_path, capsys):
    assert main(["doctor", "--quick", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "all is well" in out
    assert all(f"  {name}" in out for name in (*checkup.OPTIONAL, *checkup.PARTS))


def test_every_claim_of_the_self_test_exists():
    assert claims.CLAIMS.keys() >= set(checkup.CLAIMS)


@pytest.mark.parametrize(
    "name",
    ["critical-kappa", "coalesce", "fast sum on the circle", "probe of a model"],
)
def test_the_self_test_passes(name):
    check = checkup.tried(name)
    assert check.verdict == "OK", check.said
    assert check.said and check.seconds > 0


def test_a_wrong_claim_fails_and_the_exit_code_is_1(monkeypatch, tmp_path, capsys):
    wrong = replace(claims.CLAIMS["critical-kappa"], check=lambda: (1.0, 2.0), printed="")
    monkeypatch.setitem(claims.CLAIMS, "critical-kappa", wrong)
    only = {"critical-kappa": checkup.SELF_TEST["critical-kappa"]}
    monkeypatch.setattr(checkup, "SELF_TEST", only)
    code, said, checks = report(capsys, "--out", str(tmp_path))
    assert code == 1 and not said["ok"]
    assert (
        checks["critical-kappa"]["verdict"] == "FAIL"
        and "1.0e+00" in checks["critical-kappa"]["said"]
    )


def test_a_wrong_fast_sum_fails(monkeypatch):
    wrong = lambda q, k, v, beta: tuple(1.001 * part for part in kernels.dense(q, k, v, beta))
    monkeypatch.setitem(kernels.KERNEL_SUMS, "fourier", wrong)
    check = checkup.tried("fast sum on the circle")
    assert check.verdict == "FAIL" and "off the sum over all pairs" in check.said


def test_an_error_is_a_failure_and_not_a_crash(monkeypatch):
    monkeypatch.setitem(checkup.SELF_TEST, "coalesce", lambda: 1 / 0)
    check = checkup.tried("coalesce")
    assert check.verdict == "FAIL" and check.said == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("part", checkup.OPTIONAL)
def test_a_missing_part_is_named_with_the_line_that_adds_it(part, monkeypatch, tmp_path, capsys):
    modules, remedy = checkup.OPTIONAL[part]
    monkeypatch.setitem(sys.modules, modules[0], None)
    code, said, _ = report(capsys, "--quick", "--out", str(tmp_path))
    assert code == 0
    assert said["optional parts"][part] == f"missing {modules[0]}: {remedy}"


def test_checks_of_missing_parts_say_so(monkeypatch):
    for module in ("torch", "finufft"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("probe of a model", "fast sum on the circle"):
        check = checkup.tried(name)
        assert check.verdict == "--" and "pip install" in check.said


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/1/runs"])
def test_a_folder_that_takes_no_files_fails_with_a_remedy(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    code, _, checks = report(capsys, "--quick", "--out", place)
    assert code == 1
    assert checks["run folder"]["verdict"] == "FAIL" and "--out" in checks["run folder"]["said"]


def test_a_device_without_float64_fails(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "jit", lambda f: lambda x: f(x.astype("float32")))
    check = checkup.float64()
    assert check.verdict == "FAIL" and "float32" in check.said
