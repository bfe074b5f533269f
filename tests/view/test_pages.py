"""Pages, decoded again: positions to the stated error, labels as data, one sentence for bad input."""

import base64
import hashlib
import json
import re
import zlib
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow import cli, store
from attnflow.commands.view import column, scene_of_run
from attnflow.experiments import EXPERIMENTS, VIEWED, load, simulate, staircase, trained_model
from attnflow.view import Color, clock_of, html, page, scene_of_states, thinned
from attnflow.view.states import cosine_shares, lasting, principal_axes
from attnflow.view.thinning import frames_shown, top_of

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "a\u2028b\u2029c",
    "&lt;b&gt;",
    "\ud800",
]


@pytest.fixture(autouse=True)
def assets(monkeypatch):
    """Small stand-ins: the script itself is tested in a browser."""
    monkeypatch.setattr(page, "_asset", {"viewer.js": "'{}';", "viewer.css": "b{}"}.get)


def blocks(text):
    """Content of the data blocks, as a browser would cut them."""
    return {
        name: re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script', text, re.S)[1]
        for name in ("meta", "data")
    }


def decoded(text):
    """`meta` and the arrays of a page, by FORMAT.md alone."""
    found = blocks(text)
    meta = json.loads(found["meta"])
    blob = zlib.decompress(base64.b64decode(found["data"]))
    assert len(blob) == meta["blob"]["bytes"]
    arrays = {}
    for name, entry in meta["arrays"].items():
        count, kind = int(np.prod(entry["shape"])), np.dtype(entry["dtype"]).newbyteorder("<")
        assert entry["offset"] % 8 == 0
        raw = np.frombuffer(blob, np.uint8, count * kind.itemsize, entry["offset"])
        if entry.get("filter") == "delta":
            values = raw.reshape(2, count).T.copy().view(kind).reshape(entry["shape"])
            values = np.cumsum(values, axis=0, dtype=kind)
        else:
            values = raw.view(kind).reshape(entry["shape"])
        arrays[name] = values
    return meta, arrays


def run_of(n=40, d=3, t=12, **more):
    ts = af.log_times(30.0, t, t_min=0.1)
    x0 = af.sphere.uniform(jr.key(1), n, d)
    return af.solve(af.sa(9.0), x0, ts, rtol=1e-6, **more)


@pytest.fixture(scope="module")
def sphere_run():
    return run_of(observe={"R": af.observables.order_parameter})


@pytest.mark.parametrize(("d", "kind"), [(2, "circle"), (3, "sphere")])
def test_positions_come_back_to_the_stated_error(tmp_path, d, kind):
    traj = run_of(d=d)
    meta, arrays = decoded(traj.to_html(tmp_path / "a.html").read_text())
    shown = arrays["positions"] / meta["tokens"]["scale"]
    error = np.abs(shown - np.asarray(traj.xs)).max()
    np.testing.assert_allclose(error, meta["tokens"]["error"], rtol=1e-6)
    assert error <= 0.5 / 32767 + 1e-12
    assert meta["space"]["kind"] == kind and meta["space"]["dims"] == d
    assert f"{error:.1e}" in meta["notes"][-1]


def test_time_is_a_logarithm_with_a_place_for_zero(sphere_run, tmp_path):
    meta, arrays = decoded(sphere_run.to_html(tmp_path / "a.html").read_text())
    time = arrays["time"]
    assert meta["time"]["log"] and meta["time"]["zero"]
    np.testing.assert_allclose(10 ** time[1:], sphere_run.ts[1:], rtol=1e-12)
    np.testing.assert_allclose(time[1] - time[0], time[2] - time[1])
    assert not clock_of(np.linspace(0, 5, 7)).log


def test_panels_hold_what_the_run_observed(sphere_run, tmp_path):
    meta, arrays = decoded(sphere_run.to_html(tmp_path / "a.html").read_text())
    panels = {panel["id"]: panel["series"][0] for panel in meta["panels"]}
    assert list(panels) == ["clusters", "rho", "R"]
    np.testing.assert_array_equal(arrays[panels["R"]["y"]], sphere_run.observed["R"])
    rho = [float(af.observables.mean_cosine(x)) for x in sphere_run.xs]
    np.testing.assert_allclose(arrays[panels["rho"]["y"]], rho, rtol=1e-9, atol=1e-12)
    labels = af.analysis.clusters.cluster_labels(np.asarray(sphere_run.xs), cosine=0.99)
    np.testing.assert_array_equal(arrays[panels["clusters"]["y"]], labels.max(axis=1) + 1)
    shares = arrays["histogram.counts"]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    edges = arrays["histogram.edges"]
    exact = [af.observables.cosine_histogram(x, jnp.asarray(edges)) for x in sphere_run.xs]
    np.testing.assert_allclose(shares, np.array(exact) / (40 * 39 / 2), atol=2e-3)  # ties of edges


def test_more_dimensions_are_seen_on_principal_axes(tmp_path):
    """Coordinates are inner products with orthonormal axes; shares are those of an SVD of all frames."""
    traj = run_of(d=6)
    meta, arrays = decoded(traj.to_html(tmp_path / "a.html").read_text())
    rows = np.asarray(traj.xs).reshape(-1, 6)
    squares = np.linalg.svd(rows, compute_uv=False) ** 2
    np.testing.assert_allclose(meta["space"]["variance"], squares[:3] / squares.sum(), rtol=1e-9)
    axes, _ = principal_axes(rows)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    shown = arrays["positions"].reshape(-1, 3) / meta["tokens"]["scale"]
    np.testing.assert_allclose(shown, rows @ axes, atol=meta["tokens"]["error"] + 1e-9)
    held = (shown**2).sum(axis=0) / len(rows)
    np.testing.assert_allclose(held, meta["space"]["variance"], atol=2 * meta["tokens"]["error"])
    assert "not centred" in meta["space"]["note"] and "unit ball" in meta["space"]["note"]


def test_a_larger_run_is_thinned_and_says_so(tmp_path):
    traj = run_of(n=60, t=41)
    text = traj.to_html(tmp_path / "a.html", max_tokens=25, max_frames=10).read_text()
    meta, arrays = decoded(text)
    assert arrays["positions"].shape[:2] == (len(arrays["time"]), 25) and len(arrays["time"]) <= 10
    index = arrays[meta["tokens"]["index"]]
    times = np.searchsorted(np.asarray(traj.ts), 10 ** arrays["time"][1:] * (1 - 1e-9))
    shown = np.asarray(traj.xs)[np.append(0, times)][:, index]
    scale, error = meta["tokens"]["scale"], meta["tokens"]["error"]
    np.testing.assert_allclose(arrays["positions"] / scale, shown, atol=error + 1e-9)
    notes = " ".join(meta["notes"])
    assert "25 of 60 tokens" in notes and "of 41 frames" in notes and "of the tokens shown" in notes
    assert meta["tokens"]["n"] == 60 and meta["tokens"]["shown"] == 25


def test_frames_are_thinned_evenly_in_log_time():
    """Also where saves are not even: nearest to 50 even values, so off by half a gap of the saves."""
    clock = clock_of(
        np.unique(np.concatenate([[0], np.geomspace(1e-2, 1e4, 1000), np.arange(9e3)]))
    )
    kept = clock.values[frames_shown(clock, 50)]
    assert len(kept) == 50 and kept[0] == clock.values[0] and kept[-1] == clock.values[-1]
    even = np.linspace(kept[0], kept[-1], 50)
    assert np.abs(kept - even).max() <= np.diff(clock.values).max() / 2 + 1e-12


def test_a_scene_is_thinned_token_by_token():
    """Colours, numbers, names and leaves stay with their token, also if it is thinned twice."""
    data = staircase.run(staircase.Config(n=12, beta=80.0, seed=2))
    whole = replace(staircase.scene(data), names=tuple("abcdefghijkl"))
    few = thinned(thinned(whole, 8, 60), 5, 20)
    assert few.positions.shape == (20, 5, 2) and few.tokens == 12 and len(few.clock.values) == 20
    at = np.searchsorted(whole.clock.values, few.clock.values)
    for whole_part, part in (
        (whole.positions, few.positions),
        (whole.colors[0].values, few.colors[0].values),
    ):
        np.testing.assert_array_equal(whole_part[at][:, few.index], part)
    np.testing.assert_array_equal(few.dendrogram.leaf_of, few.index)
    assert few.names == tuple("abcdefghijkl"[i] for i in few.index)
    np.testing.assert_array_equal(few.histogram.shares, whole.histogram.shares[at])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), merging=st.booleans())
def test_numbers_of_clusters_last(seed, n, merging):
    """Each frame keeps its partition; numbers are 0..k-1; while clusters merge, no number moves to another."""
    rng = np.random.default_rng(seed)
    frames = [np.arange(n)]
    for _ in range(5):
        joined = frames[-1] if merging else np.arange(n)
        frames.append(rng.integers(0, max(n - 1, 1), n)[joined])
    found = lasting(np.stack(frames))
    for raw, numbers in zip(frames, found, strict=True):
        assert len(set(zip(raw, numbers, strict=True))) == len(set(raw)) == len(set(numbers))
    if merging:
        for numbers, later in pairwise(found):
            assert set(numbers) == set(range(len(set(numbers))))
            for number in set(later):
                parts = np.bincount(numbers[later == number])
                assert parts[number] == parts.max()


def test_hostile_texts_stay_data(tmp_path):
    """No text can end its block or open another, and each comes back as it was."""
    traj = rebuilt(run_of(n=5, t=4), observed={HOSTILE[0]: jnp.ones(4)})
    text = traj.to_html(
        tmp_path / "a.html", names=HOSTILE, color=HOSTILE, title=HOSTILE[0]
    ).read_text()
    found = blocks(text)
    assert not re.search("[<>&\u2028\u2029]", found["meta"])
    meta = json.loads(found["meta"])
    assert meta["tokens"]["names"] == HOSTILE and meta["title"] == HOSTILE[0]
    color = meta["colors"][1]
    assert sorted(color["labels"]) == sorted(HOSTILE)
    assert meta["panels"][2]["title"] == HOSTILE[0]
    assert "<img" not in text and text.count("</script>") == 3


def rebuilt(traj, **changes):
    """Trajectory with other fields."""
    names = [field.name for field in fields(traj)]
    return type(traj)(**{name: getattr(traj, name) for name in names} | changes)


def test_the_policy_lets_in_its_own_script_and_style_alone(sphere_run, tmp_path, monkeypatch):
    """Hashes are those of the text between the tags."""
    monkeypatch.setattr(page, "_asset", lambda name: f"/* {name} é < & */\n")
    text = sphere_run.to_html(tmp_path / "a.html").read_text()
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)[1]
    for kind, content in (("style", "viewer.css"), ("script", "viewer.js")):
        inside = re.search(f"<{kind}>(.*?)</{kind}>", text, re.S)[1]
        assert content in inside
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert not re.search(r"(https?:)?//\w|\son\w+=|style=", text.split("<div")[0])


def test_positions_that_deflate_badly_get_coarser(monkeypatch):
    """The error is what was measured, half a step or less; the coarsest is the last resort."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20, 500, 3))
    theta = steps / np.linalg.norm(steps, axis=-1, keepdims=True)
    second = len(zlib.compress(page.pack({"x": np.rint(theta * 8191).astype(np.int16)})[1], 6))
    for budget, expected in ((60_000, 32767), (second, 8191), (second - 1, 2047), (9, 511)):
        monkeypatch.setattr(page, "BUDGET", budget)
        whole, scale, error = page.quantized(theta)
        assert scale == expected
        np.testing.assert_allclose(np.abs(whole / scale - theta).max(), error)
        assert 0.49 / scale < error <= 0.5 / scale + 1e-12


def test_a_page_is_whole_or_absent(sphere_run, tmp_path, monkeypatch):
    target = tmp_path / "a.html"

    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("attnflow.store.files.sync", full)
        with pytest.raises(OSError, match="could not be written: No space left"):
            sphere_run.to_html(target)
    assert list(tmp_path.iterdir()) == []

    def overtaken(path):
        target.write_text("theirs")

    with monkeypatch.context() as broken:
        broken.setattr("attnflow.store.files.sync", overtaken)
        with pytest.raises(FileExistsError, match="must be free"):
            sphere_run.to_html(target)
    assert target.read_text() == "theirs" and list(tmp_path.iterdir()) == [target]
    target.unlink()
    assert sphere_run.to_html(target) == target
    before = target.read_bytes()
    with pytest.raises(
        FileExistsError, match=r"must be free, but .*a.html' exists\. Pass `force=True`"
    ):
        sphere_run.to_html(target, title="other")
    assert target.read_bytes() == before
    sphere_run.to_html(target, title="other", force=True)
    assert target.read_bytes() != before and list(tmp_path.iterdir()) == [target]


def test_colours_of_a_user(sphere_run, tmp_path):
    numbers = np.linspace(0, 1, 40)
    for values, kind in (
        (numbers, "number"),
        (["a", "b"] * 20, "category"),
        ([0, 1] * 20, "category"),
    ):
        text = sphere_run.to_html(tmp_path / "a.html", color=values, force=True).read_text()
        meta, arrays = decoded(text)
        assert meta["colors"][1]["kind"] == kind
    meta, arrays = decoded(sphere_run.to_html(tmp_path / "b.html", color=numbers).read_text())
    np.testing.assert_allclose(arrays[meta["colors"][1]["array"]], numbers, rtol=1e-6)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"color": np.ones(3)},
            "`color` must hold one value per token, n=40, but color.shape=(3,)",
        ),
        ({"color": np.ones(40, complex)}, "`color` must hold numbers or words"),
        ({"names": ["a"]}, "`names` must hold n=40 texts, but len(names)=1"),
        ({"max_tokens": 0}, "`max_tokens` must be a whole number >= 1"),
        ({"max_frames": 1}, "`max_frames` must be a whole number >= 2"),
    ],
)
def test_bad_input(sphere_run, tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        sphere_run.to_html(tmp_path / "a.html", **changes)
    assert list(tmp_path.iterdir()) == []


def test_runs_that_cannot_be_shown(tmp_path):
    with pytest.raises(ValueError, match=r"must hold states, but traj.xs is None\. Solve again"):
        run_of(states=False).to_html(tmp_path / "a.html")
    run = run_of()
    modes = rebuilt(run, observed={}, axes=("mode",))
    with pytest.raises(ValueError, match="must hold tokens, but its states are modes"):
        modes.to_html(tmp_path / "a.html")
    several = rebuilt(run, xs=np.asarray(run.xs)[None])
    with pytest.raises(ValueError, match="must be one run"):
        several.to_html(tmp_path / "a.html")
    lost = np.array(run.xs)
    lost[3, 2] = np.nan
    with pytest.raises(ValueError, match="must hold finite tokens"):
        rebuilt(run, xs=lost).to_html(tmp_path / "a.html")
    with pytest.raises(FileNotFoundError, match="in a folder that exists"):
        run_of().to_html(tmp_path / "none" / "a.html")
    with pytest.raises(IsADirectoryError, match="must name a file"):
        run_of().to_html(tmp_path)


def test_a_merge_tree_has_exact_frames_and_its_dendrogram(tmp_path):
    x0 = np.asarray(af.sphere.uniform(jr.key(2), 12, 2), float)
    tree = af.coalesce(af.Attention(60.0), x0)
    meta, arrays = decoded(tree.to_html(tmp_path / "a.html", max_frames=40).read_text())
    time, shown = arrays["time"], arrays["positions"] / meta["tokens"]["scale"]
    assert len(time) <= 41 and np.all(np.diff(time) > 0)
    for k in (1, len(time) // 2, len(time) - 1):
        moment = tree.at(log10_t=time[k])
        error = meta["tokens"]["error"] + 1e-6  # kept in float32
        np.testing.assert_allclose(shown[k], moment.x[moment.labels], atol=error)
        groups = set(zip(arrays["color0"][k], moment.labels, strict=True))
        assert len(groups) == moment.labels.max() + 1
    parts = meta["dendrogram"]
    pairs = np.column_stack([arrays[parts["left"]], arrays[parts["right"]]])
    np.testing.assert_array_equal(pairs, tree.pairs)
    np.testing.assert_allclose(arrays[parts["height"]], tree.log10_times)
    np.testing.assert_array_equal(arrays[parts["size"]], tree.linkage[:, 3])
    assert sorted(arrays[parts["leaves"]]) == list(range(12))


def test_the_top_of_a_tree_keeps_its_groups():
    x0 = np.asarray(af.sphere.uniform(jr.key(2), 12, 2), float)
    tree = af.coalesce(af.Attention(60.0), x0)
    from attnflow.view import scene_of_tree

    whole = scene_of_tree(tree, max_frames=10).dendrogram
    top = top_of(whole, 5)
    assert top.n == 5 and len(top.pairs) == 4 and top.leaf_sizes.sum() == 12
    labels = tree.labels(5)
    assert len(set(zip(top.leaf_of, labels, strict=True))) == 5
    np.testing.assert_array_equal(np.bincount(top.leaf_of), top.leaf_sizes)
    np.testing.assert_array_equal(top.heights, whole.heights[-4:])
    assert top.pairs.max() == 5 + 2


def test_experiments_with_a_page_are_those_with_a_scene():
    assert set(VIEWED) == {name for name in EXPERIMENTS if hasattr(load(name), "scene")}


def test_a_simulation_is_shown_with_its_theory():
    data = simulate.run(simulate.Config(n=20, t_max=20.0, saves=9))
    meta, arrays = decoded(html(thinned(simulate.scene(data))))
    rho = next(panel for panel in meta["panels"] if panel["id"] == "rho")
    assert [one["style"] for one in rho["series"]] == ["measured", "theory"]
    np.testing.assert_array_equal(arrays[rho["series"][1]["y"]], data.predicted_cosine)
    error = meta["tokens"]["error"] + 1e-12
    shown = arrays["positions"] / meta["tokens"]["scale"]
    np.testing.assert_allclose(shown, data.tokens, atol=error)
    rare = simulate.run(simulate.Config(n=20, t_max=20.0, saves=9, state_saves=4))
    meta, arrays = decoded(html(simulate.scene(rare)))
    assert len(arrays["time"]) == 4 and len(arrays[meta["panels"][0]["series"][0]["x"]]) == 9
    np.testing.assert_allclose(10 ** arrays["time"][1:], rare.time[rare.state_save[1:]])


def test_a_staircase_is_shown_beside_the_greedy_rule():
    data = staircase.run(staircase.Config(n=12, beta=80.0, seed=2))
    meta, arrays = decoded(html(staircase.scene(data)))
    energy = meta["panels"][0]
    assert [one["style"] for one in energy["series"]] == ["measured", "event", "theory"]
    x = arrays[energy["series"][2]["x"]]
    np.testing.assert_allclose(x[1:-1], data.predicted_log10_time)
    assert np.all(np.diff(x) >= 0) and x[0] < x[1]
    assert meta["dendrogram"]["n"] == 12
    assert staircase.scene(data.drop_vars("frame_tokens")) is None


def test_a_model_is_shown_by_layer_with_its_words():
    """Points keep the inner products of hidden states, as far as the axes hold them."""
    rng = np.random.default_rng(3)
    states = rng.normal(size=(4, 9, 3)) * 5  # d = 3: the axes are all there are
    kept = trained_model.kept_states(states, HOSTILE + list("abcd"), 2.0)
    theta = states / np.linalg.norm(states, axis=-1, keepdims=True)
    np.testing.assert_allclose(kept["positions"][1], theta, atol=1e-6)
    deep = rng.normal(size=(4, 9, 20))
    kept = trained_model.kept_states(deep, list("abcdefghi"), 2.0)
    assert kept["positions"][1].shape == (4, 9, 3) and kept["share"][1].sum() < 1


def test_saved_states_of_a_model_have_a_page(tmp_path):
    rng = np.random.default_rng(3)
    start = rng.normal(size=(10, 8))
    layers = {f"layer{k}": start + 0.3 * k for k in range(4)}
    np.savez(tmp_path / "s.npz", **layers)
    config = trained_model.Config(model=str(tmp_path / "s.npz"))
    meta, arrays = decoded(html(trained_model.scene(trained_model.run(config))))
    assert meta["time"]["kind"] == "layer" and meta["time"]["ticks"] == ["entry", "1", "2", "3"]
    assert [panel["id"] for panel in meta["panels"]] == ["rho", "clusters", "rank", "energy"]
    np.testing.assert_array_equal(arrays["time"], np.arange(4.0))
    assert arrays["positions"].shape == (4, 10, 3)


def test_pairs_of_a_small_cloud_make_the_histogram():
    two = np.array([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    shares = cosine_shares(two).shares[0]
    assert shares[0] == 1 / 3 and shares[40] == 2 / 3


def test_lengths_that_vary_are_told():
    xs = np.array([[[2.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]]])
    scene = scene_of_states(clock_of(np.array([0.0, 1.0])), xs, title="")
    assert np.abs(np.linalg.norm(scene.positions, axis=-1) - 1).max() < 1e-15
    assert "lengths go from 1 to 3" in scene.notes[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    common = ["--n", "10", "--saves", "5", "--t-max", "5", "--out", str(root), "--quiet"]
    assert cli.main(["run", "simulate", *common]) == 0
    assert cli.main(["run", "simulate", "--no-states", "--seed", "1", *common]) == 0
    return root


@pytest.fixture
def names(runs):
    found = store.list_runs(runs)
    return {run.config["states"]: run.name for run in found if run.experiment == "simulate"}


def test_writes_a_page_into_the_run(runs, names, capsys):
    target = runs / names[True] / "view.html"
    words = ["view", names[True][:-2], "--out", str(runs)]
    assert cli.main(words) == 0
    assert str(target) in capsys.readouterr().out and decoded(target.read_text())
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "exists. --force replaces it, --page PATH writes another." in said
    assert cli.main([*words, "--force"]) == 0
    store.load(runs / names[True])


def test_a_column_of_the_user(runs, names, tmp_path):
    (tmp_path / "c.csv").write_text("kind\n" + "\n".join(["a", "b"] * 5) + "\n")
    words = ["view", names[True], "--out", str(runs), "--page", str(tmp_path / "p.html")]
    assert cli.main([*words, "--color", str(tmp_path / "c.csv")]) == 0
    meta, _ = decoded((tmp_path / "p.html").read_text())
    assert meta["colors"][0]["name"] == "kind" and meta["colors"][0]["labels"] == ["a", "b"]


def test_a_run_without_states(runs, names, capsys):
    assert cli.main(["view", names[False], "--out", str(runs)]) == 2
    said = capsys.readouterr().err
    assert "kept none. Run it again with --force and --states." in said and said.count("\n") == 1


def test_a_run_of_another_kind(runs, capsys):
    @dataclass(frozen=True)
    class Config:
        n: int = 3

    folder = store.folder_of("modes", Config(), runs)
    store.save(folder, "modes", Config(), xr.Dataset({"a": ("b", [1.0])}), provenance={})
    with pytest.raises(ValueError, match="must be a run of simulate, staircase, trained-model"):
        scene_of_run(folder)
    assert cli.main(["view", folder.name, "--out", str(runs)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_columns_that_do_not_fit(tmp_path):
    for name, text, sentence in (
        ("a.csv", "1\n2\n", "n=5, but color.shape=(2,)"),
        ("b.csv", "1,2\n" * 5, "it has 2 columns, not 1"),
        ("c.txt", "", "must be a .npy or .csv file"),
        ("d.npy", "no", "must be a readable .npy file"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=re.escape(sentence)):
            column(tmp_path / name, 5)
    with pytest.raises(ValueError, match="must be a readable"):
        column(tmp_path / "none.csv", 5)
    (tmp_path / "e.csv").write_text("1\n0\n1\n0\n1.0\n")
    assert column(tmp_path / "e.csv", 5).labels == ("0", "1")
    assert isinstance(column(tmp_path / "e.csv", 5), Color)


def test_a_missing_viewer_is_told(monkeypatch, tmp_path, sphere_run):
    monkeypatch.undo()
    monkeypatch.setattr(page.resources, "files", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`viewer\.css` of the viewer is not in this"):
        sphere_run.to_html(tmp_path / "a.html")
    assert replace(Color("a", np.ones(2)), unit="s").kind == "number"
