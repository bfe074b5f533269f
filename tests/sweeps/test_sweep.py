"""Sweeps in this process: what is there is kept, what fails is told, what is bad is refused first."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from attnflow import store
from attnflow.cli import main
from attnflow.sweeps import draw, product, random, sweep, zipped
from attnflow.sweeps.figure import over_seeds


def count(folder):
    log = folder / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def run(toy, tmp_path):
    """Function (points) -> merged results, in a store of this test's own."""

    def run(points, **how):
        return sweep("toy", points, **{"out": tmp_path / "runs", "progress": False, **how})

    return run


def test_a_product_has_an_axis_a_field(run, toy, tmp_path):
    data = run(product("toy", seed=range(3), beta=[2.0, 1.0], folder=str(tmp_path)))
    assert data.x.dims == ("beta", "seed", "token") and data.x.shape == (2, 3, 3)
    assert data.beta.values.tolist() == [1.0, 2.0] and data.token.values.tolist() == [10, 11, 12]
    for beta in (1.0, 2.0):
        for seed in range(3):
            own = toy.run(toy.Config(beta=beta, seed=seed))
            one = data.sel(beta=beta, seed=seed)
            assert np.array_equal(one.x, own.x) and float(one.total) == float(own.x.sum())
            assert store.load(tmp_path / "runs" / str(one.run.values)).identical(
                store.load(
                    store.folder_of("toy", config(toy, tmp_path, beta, seed), tmp_path / "runs")
                )
            )
    assert not data.reason.values.any()


def config(toy, folder, beta, seed):
    return toy.Config(beta=beta, seed=seed, folder=str(folder))


def test_what_is_merged(run, tmp_path):
    data = run(product("toy", beta=[1.0, 5.0], folder=str(tmp_path)))
    assert data.attrs["merged"] == ["total", "steps", "rate", "kind", "x", "side", "beta_of_run"]
    assert data.side.dtype == bool and data.steps.dtype == np.int64
    assert data.rate.values[0] == 1.0 and np.isnan(data.rate.values[1])
    assert data.kind.values.tolist() == ["low", "high"]
    assert data.x.attrs["long_name"] == "entries"
    settings = json.loads(data.attrs["settings"])
    assert settings["n"] == 3 and "beta" not in settings
    more = run(product("toy", beta=[1.0, 5.0], folder=str(tmp_path)), keep=["kept"])
    assert more.kept.shape == (2, 1)


def test_results_of_other_shapes_are_left_out(run, tmp_path):
    data = run(product("toy", n=[2, 4], folder=str(tmp_path)))
    assert "x" in data.attrs["left_out"] and "token" not in data.dims
    assert data.total.shape == (2,)


@pytest.mark.parametrize("make", [zipped, random])
def test_what_is_no_grid_has_one_dimension(run, make, tmp_path):
    how = {"beta": [1.0, 2.0, 3.0], "seed": [4, 4, 6], "folder": str(tmp_path)}
    points = make("toy", **how) if make is zipped else make("toy", 9, **how)
    data = run(points)
    assert data.total.dims == ("task",)
    assert data.beta.values.tolist() == [p.beta for p in points]
    assert data.seed.values.tolist() == [p.seed for p in points]
    assert count(tmp_path) == len(set(points))


def test_words_and_tuples_are_labels(run, tmp_path):
    data = run(product("toy", mode=["b", "a"], ns=[(1, 2), (3,)], folder=str(tmp_path)))
    assert data.mode.values.tolist() == ["b", "a"]
    assert data.ns.values.tolist() == ["1,2", "3"]


def test_a_second_time_nothing_is_done(run, tmp_path):
    points = product("toy", seed=range(5), folder=str(tmp_path))
    first = run(points)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")}
    assert run(points).identical(first)
    assert count(tmp_path) == 5
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")} == stamps
    run(product("toy", seed=range(7), folder=str(tmp_path)))
    assert count(tmp_path) == 7


def test_a_failure_is_a_row_and_is_done_again_on_request(run, tmp_path):
    points = product("toy", beta=[1.0, 2.0, 3.0], mode="fails", folder=str(tmp_path))
    data = run(points)
    assert data.reason.values.tolist() == ["", "", "ZeroDivisionError: no such number"]
    assert np.isnan(data.total.values).tolist() == [False, False, True]
    assert np.isnan(data.x.values[2]).all() and data.kind.values[2] == ""
    (note,) = (tmp_path / "runs" / ".failed").iterdir()
    assert json.loads(note.read_bytes())["config"]["beta"] == 3.0
    assert run(points).identical(data) and count(tmp_path) == 3
    assert run(points, retry=True).identical(data) and count(tmp_path) == 4
    (tmp_path / "well").touch()
    assert run(points).reason.values[2] and count(tmp_path) == 4
    healed = run(points, retry=True)
    assert not healed.reason.values.any() and np.isfinite(healed.total).all()
    assert count(tmp_path) == 5 and not list((tmp_path / "runs" / ".failed").iterdir())


def test_a_line_has_means_over_seeds_with_their_standard_errors(run, tmp_path):
    data = run(product("toy", beta=[1.0, 2.0, 3.0], seed=range(4), folder=str(tmp_path)))
    mean, error, fields = over_seeds(data, "x@token=11")
    one = data.x.isel(token=1).values
    assert fields == ["beta"]
    np.testing.assert_allclose(mean, one.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(error, one.std(axis=1, ddof=1) / 2, rtol=1e-12)
    line, _, _ = draw(data, "x@token=11").axes[0].containers[0]
    np.testing.assert_allclose(line.get_ydata(), mean)


def test_two_fields_of_numbers_are_a_map(run, tmp_path):
    data = run(product("toy", beta=[1.0, 2.0, 3.0], n=[2, 4], seed=range(2), folder=str(tmp_path)))
    ax = draw(data, "total").axes[0]
    cells = ax.collections[0].get_array()
    mean = data.total.mean("seed")
    across, up = ax.get_xlabel(), ax.get_ylabel()
    np.testing.assert_allclose(cells, mean.transpose(up, across))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1", "2", "3"]
    data = run(product("toy", beta=[1.0, 2.0], mode=["a", "b"], folder=str(tmp_path)))
    assert [t.get_text() for t in draw(data).axes[0].get_legend().texts] == ["mode = a", "mode = b"]


def test_three_fields_are_too_many_to_draw(run, tmp_path):
    data = run(product("toy", beta=[1.0, 2.0], n=[2, 4], mode=["a", "b"], folder=str(tmp_path)))
    with pytest.raises(ValueError, match="one or two swept fields"):
        draw(data)
    assert draw(data.isel(n=0)).axes


def test_all_fail(run, tmp_path):
    data = run(product("toy", beta=[3.0, 4.0], mode="fails", folder=str(tmp_path)))
    assert all(data.reason.values) and not data.data_vars


def test_a_bad_point_is_refused_before_any_work(run, tmp_path):
    with pytest.raises(ValueError, match="n=0"):
        run(product("toy", n=[3, 0], folder=str(tmp_path)))
    with pytest.raises(ValueError, match="must be float"):
        run(product("toy", beta=[1.0, "a"], folder=str(tmp_path)))
    with pytest.raises(ValueError, match="`keep`"):
        run(product("toy", n=[3, 4], folder=str(tmp_path)), keep=["nothing"])
    assert count(tmp_path) == 2  # `keep` is known after the first run only


def test_no_points_and_foreign_points(run, toy):
    for points in ([], [1, 2]):
        with pytest.raises(ValueError, match="must be configs of toy"):
            run(points)


def test_a_run_of_a_newer_version_is_one_sentence(run, tmp_path):
    points = product("toy", seed=range(2), folder=str(tmp_path))
    path = next((tmp_path / "runs").glob("toy-*")) if run(points) else None
    path = path / "config.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="newer attnflow"):
        run(points)


class Result:
    """Future that can only be asked for its result."""

    def __init__(self, function, *args):
        self.call = function, args

    def result(self):
        function, args = self.call
        return function(*args)


class Losing:
    """Executor that loses the first tasks it is given."""

    def __init__(self, losses):
        self.losses = losses

    def submit(self, function, *args):
        self.losses -= 1
        return Result(lose) if self.losses >= 0 else Result(function, *args)


def lose():
    raise ConnectionError("the worker is gone")


def test_a_lost_task_is_submitted_again(run, tmp_path):
    data = run(product("toy", seed=range(3), folder=str(tmp_path)), executor=Losing(2))
    assert not data.reason.values.any()


def test_a_task_that_is_lost_again_and_again_is_a_row(run, tmp_path):
    executor = Losing(3)
    data = run(product("toy", seed=0, folder=str(tmp_path)), executor=executor)
    assert data.reason.values[0] == "It was lost 3 times: the worker is gone"
    data = run(product("toy", seed=0, folder=str(tmp_path)), executor=executor, retry=True)
    assert not data.reason.values[0]


def test_a_worker_that_does_not_see_the_store(run, tmp_path):
    class Elsewhere:
        def submit(self, function, *args):
            return Result(tuple, ("done", ""))

    data = run(product("toy", seed=0, folder=str(tmp_path)), executor=Elsewhere())
    assert "does not see" in data.reason.values[0]


def test_an_executor_that_takes_nothing(run, tmp_path):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="takes no more tasks"):
        run(product("toy", seed=0, folder=str(tmp_path)), executor=pool)


def test_threads_give_the_same_bytes(run, tmp_path):
    points = product("toy", seed=range(12), folder=str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        threads = run(points, executor=pool, out=tmp_path / "other")
    assert run(points).x.values.tobytes() == threads.x.values.tobytes()


def test_the_command(toy, tmp_path, capsys):
    words = [
        "sweep",
        "toy",
        "--beta",
        "1",
        "2",
        "3",
        "--seed",
        "0:4",
        "--out",
        str(tmp_path / "runs"),
    ]
    words += ["--folder", str(tmp_path)]
    assert main([*words, "--outcome", "total"]) == 0
    out, err = capsys.readouterr()
    assert "means over 4 seeds" in out and "±" in out and "12/12" in err
    figure = out.strip().splitlines()[-1].removeprefix("figure: ")
    assert Path(figure).read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["tasks"]) == 12 and told["settings"]["n"] == 3
    row = told["tasks"][5]
    x = store.load(tmp_path / "runs" / row["run"]).x.values
    assert row["numbers"]["total"] == x.sum() and row["numbers"]["x"] == x[-1]
    assert main(["show", told["sweep"], "--out", str(tmp_path / "runs")]) == 0
    assert main(["list", "--out", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.count("sweep-") == 4


def test_a_failure_is_told_by_the_command(toy, tmp_path, capsys):
    words = ["sweep", "toy", "--beta", "1", "3", "--mode", "fails", "--folder", str(tmp_path)]
    words += ["--out", str(tmp_path / "runs")]
    assert main([*words, "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert "ZeroDivisionError: no such number" in err and "--retry" in err and "sweep:" in out
    (tmp_path / "well").touch()
    assert main([*words, "--quiet", "--retry"]) == 0


def test_a_run_of_a_sweep_is_a_run_and_is_drawn_when_shown(toy, tmp_path, capsys):
    words = ["--n", "4", "--folder", str(tmp_path), "--out", str(tmp_path / "runs")]
    assert main(["sweep", "toy", "--seed", "0:2", *words, "--quiet"]) == 0
    (folder, _) = sorted((tmp_path / "runs").glob("toy-*"))
    assert not (folder / "figure.png").exists()
    assert main(["run", "toy", "--seed", "0", *words]) == 0
    assert main(["run", "toy", "--seed", "1", *words]) == 0
    assert count(tmp_path) == 2
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "figure.pdf", "figure.png", "result.zarr",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toi"], "Did you mean 'toy'?"),
        (["toy", "--bta", "1"], "Did you mean beta"),
        (["toy", "--thresold", "1"], "Did you mean threshold"),
        (["toy", "--seed", "4:4"], "is empty"),
        (["toy", "--seed", "a"], "seed='a'"),
        (["toy", "--n", "1", "0"], "n=0"),
        (["toy", "--n", "1", "--executor", "cloud"], "--executor"),
        (["toy", "--n", "1", "--executor", "here", "--address", "tcp://x:1"], "`address`"),
        (["toy", "--n", "1", "--executor", "slurm"], "srun"),
        (["toy", "--n", "1", "--executor", "dask", "--address", "tcp://127.0.0.1:1"], "`address`"),
        (["toy", "--n", "1", "--executor", "dask", "--address", "nonsense://x"], "`address`"),
        (["toy", "--n", "1", "--workers", "0", "--executor", "processes"], "`workers`"),
        (["toy", "--n", "1", "--slurm", "gpu"], "KEY=VALUE"),
        (["toy", "--n", "1", "--zip", "--random", "3"], "`zip`"),
        (["toy", "--n", "1", "2", "--outcome", "totl"], "Did you mean 'total'?"),
        (["toy", "--n", "1", "2", "--outcome", "total@time=3"], "dimension"),
        (["toy", "--n", "1", "2", "--refine", "n"], "`outcome`"),
        (["toy", "--n", "1", "2", "--refine", "beta", "--outcome", "total"], "beta has one"),
        (["toy", "--n", "1", "2", "--refine", "bta", "--outcome", "total"], "mean beta"),
        (["toy", "--n", "1", "2", "--refine", "n", "--outcome", "total"], "`threshold`"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(toy, words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("attnflow.sweeps.executors.PATIENCE", 1)
    assert main(["sweep", *words, "--quiet", "--out", str(tmp_path / "runs")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("attnflow: ") and message in err
