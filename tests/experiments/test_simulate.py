"""The simulation experiment: numbers against theory, checkpoints to the same bits."""

import json
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest

from attnflow import store
from attnflow.experiments import simulate, simulate_run
from attnflow.experiments.simulate import Config, resolve

SMALL = Config(n=8, d=3, beta=1.0, t_max=60.0, saves=17)


@pytest.fixture(scope="module")
def small():
    return simulate.run(SMALL)


def test_equiangular_run_follows_its_oracle():
    data = simulate.run(
        replace(SMALL, tokens="equiangular", rho=0.1, n=5, t_max=3.0, rtol=1e-9, atol=1e-11)
    )
    # Steps of rtol 1e-9 that contract: the global error stays within a few of them.
    np.testing.assert_allclose(data.mean_cosine, data.predicted_cosine, atol=1e-8)


def test_layers_follow_the_discrete_oracle():
    config = replace(SMALL, tokens="equiangular", n=5, t_max=3.0, method="layers", dt=0.1)
    data = simulate.run(config)
    np.testing.assert_allclose(data.mean_cosine, data.predicted_cosine, atol=1e-12)
    np.testing.assert_allclose(data.time / 0.1, np.round(data.time / 0.1), atol=1e-9)


def test_collapse_happens_at_the_predicted_rate(small):
    assert small.clusters.values[-1] == 1
    assert small.attrs["predicted_rate"] == 2.0
    # The linear law holds to 1e-4 of the rate where the decay is read.
    assert abs(small.attrs["observed_rate"] - 2) < 2e-4


def test_energy_rises_to_consensus(small):
    # One step may err by rtol = 1e-6.
    assert np.all(np.diff(small.energy) > -1e-6)
    np.testing.assert_allclose(small.energy[-1], 1, atol=1e-6)


def test_every_pair_is_counted_once(small):
    assert np.all(small.histogram.sum("bin") == 8 * 7 / 2)


@pytest.mark.parametrize("flow", ["usa", "causal", "kuramoto", "hardmax", "sinkhorn", "fisher-rao"])
def test_every_flow_runs_and_draws(flow):
    data = simulate.run(replace(SMALL, flow=flow, t_max=3.0, saves=5))
    assert isinstance(simulate.draw(data), matplotlib.figure.Figure)
    assert flow == "fisher-rao" or len(data.attrs["equation"]) > 3
    assert "beta = 1" in simulate.summary(data)


def test_pre_ln_and_repulsion_run():
    data = simulate.run(replace(SMALL, norm="pre", t_max=3.0, saves=5))
    assert data.radius.values[-1] > 1.5
    repelled = simulate.run(replace(SMALL, value=-1.0, t_max=3.0, saves=5))
    assert repelled.energy.values[-1] < repelled.energy.values[0]


def test_numbers_are_json(small):
    assert json.loads(json.dumps(simulate.numbers(small)))["clusters"][-1] == 1


def test_states_can_be_left_out():
    data = simulate.run(replace(SMALL, states=False, saves=5))
    assert "tokens" not in data and data.sizes["token"] == 8
    simulate.draw(data)


@pytest.mark.parametrize("state_saves", [1, 3])
def test_tokens_are_kept_rarely_and_numbers_often(state_saves, tmp_path):
    """And a run interrupted between them goes on from its parts, with store's own checkpoints."""
    config = replace(SMALL, saves=14)
    whole, some = simulate.run(config), simulate.run(replace(config, state_saves=state_saves))
    kept = some.state_save.values
    assert kept.tolist() == ([13] if state_saves == 1 else [0, 6, 13])
    assert some.sizes["time"] == 14 and some.tokens.shape == (state_saves, *whole.tokens.shape[1:])
    for name in ("tokens", "labels"):
        np.testing.assert_array_equal(some[name], whole[name].values[kept])
    for name in ("energy", "clusters", "largest", "gap"):
        np.testing.assert_array_equal(some[name], whole[name])
    table = lambda data: simulate.summary(data).split("Rate of")[0]  # read from another kept state
    assert table(some) == table(whole)
    simulate.draw(some)

    class Interrupted(store.Checkpoint):
        def save(self, step, arrays):
            assert "kept tokens" not in arrays
            super().save(step, arrays)
            if step == 8:
                raise KeyboardInterrupt

    rare = replace(config, state_saves=state_saves)
    with store.claim(tmp_path / "run") as own:
        with pytest.raises(KeyboardInterrupt):
            simulate.run(rare, checkpoint=Interrupted(own.folder))
        assert len(list(own.folder.glob("part-*.npz"))) == 2
        assert simulate.run(rare, checkpoint=own).identical(some)
        own.drop()
        assert [path.name for path in own.folder.iterdir()] == ["lock"]


def test_many_tokens_are_seen_through_a_fair_sample():
    """4 clusters of a tenth of a radian, of which token i belongs to the (i mod 4)-th, however many there are."""
    config = replace(SMALL, tokens="clusters", k=4, n=4 * simulate.SAMPLE, t_max=0.2, saves=3)
    data = simulate.run(replace(config, kernel_sum="harmonics"))
    x = data.start.values
    # Shares of 1024 of 4096 tokens err by 0.02; pairs within a cluster have cosines above 0.8.
    near = np.histogram((x @ x.T)[np.triu_indices(len(x), 1)], simulate.EDGES)[0]
    seen = data.histogram.values[0]
    assert seen.sum() == 1024 * 1023 / 2
    np.testing.assert_allclose(
        seen[90:].sum() / seen.sum(), near[90:].sum() / near.sum(), atol=0.02
    )
    drawn = simulate.sampled(10**6, 20_000)
    np.testing.assert_allclose(np.bincount(drawn % 8), 2500, atol=4 * 2500**0.5)
    assert len(np.unique(drawn)) == 20_000
    np.testing.assert_array_equal(simulate.sampled(5, 9), np.arange(5))


def test_the_sum_that_was_taken_is_named():
    config = replace(SMALL, saves=4, t_max=0.5, kernel_sum="harmonics")
    fast, dense = simulate.run(config), simulate.run(replace(config, kernel_sum="dense"))
    assert fast.attrs["sum_taken"] == "harmonics" and dense.attrs["sum_taken"] == "dense"
    assert "sum harmonics" in simulate.summary(fast)
    np.testing.assert_allclose(fast.tokens, dense.tokens, atol=1e-10)


def test_the_estimate_of_memory_does_not_disturb_results(capsys, monkeypatch):
    monkeypatch.setattr(simulate_run, "LARGE", 0)
    simulate.run(replace(SMALL, saves=4, t_max=0.5), progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "about 0.5 GiB of memory" in err and "to go" in err


def test_bad_sums_and_saves_are_one_sentence():
    with pytest.raises(ValueError, match="`kernel_sum` must be one of auto, dense, fourier"):
        simulate.run(replace(SMALL, kernel_sum="fast"))
    with pytest.raises(ValueError, match="`state_saves` must be a whole number >= 1"):
        simulate.run(replace(SMALL, state_saves=0))


class Memory:
    """A checkpoint that lives in memory, and kills the run after a number of saves."""

    def __init__(self, deaths=()):
        self.kept, self.deaths = None, list(deaths)

    def load(self):
        return None if self.kept is None else (self.kept[0], dict(self.kept[1]))

    def save(self, step, arrays):
        self.kept = step, {name: np.array(value) for name, value in arrays.items()}
        if self.deaths and step >= self.deaths[0]:
            self.deaths.pop(0)
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("norm", "method"),
    [*((n, "adaptive") for n in ("pre", "mix", "peri", "ngpt", "sqrt", "ln-scaling", "none")),
     ("mix", "layers"), ("ngpt", "layers")],
)  # fmt: skip
def test_every_norm_has_its_oracle_beside_it(norm, method):
    """Parts of a run before, across and after the switch of mix at t = 1."""
    config = replace(SMALL, tokens="equiangular", rho=0.1, n=5, t_max=3.0, rtol=1e-9, atol=1e-11)
    data = simulate.run(replace(config, norm=norm, alpha=0.5, method=method))
    np.testing.assert_allclose(data.mean_cosine, data.predicted_cosine, atol=1e-8)


@pytest.mark.parametrize(
    "change", [{"flow": "sa"}, {"flow": "fisher-rao"}, {"norm": "mix", "tau": 4.0}]
)
def test_a_resumed_run_has_the_same_bits(change):
    config = replace(SMALL, **change)
    checkpoint = Memory(deaths=[4, 12])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            simulate.run(config, checkpoint=checkpoint)
    resumed, whole = simulate.run(config, checkpoint=checkpoint), simulate.run(config)
    assert resumed.identical(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": float("nan")}, "`beta` must be finite"),
        ({"flow": "as"}, "must be one of .*sa"),
        ({"norm": "poost"}, "Did you mean 'post'"),
        ({"norm": "mix", "tau": 70.0}, "`tau` must lie within the run"),
        ({"norm": "none", "t_max": 400.0}, "Without a norm tokens grow like e\\^t"),
        ({"norm": "none", "t_max": 50.0, "dtype": "float32"}, "beyond float32 at t = 44.36"),
        ({"norm": "ngpt", "alpha": -1.0}, "`alpha` must satisfy"),
        ({"t_max": -1.0}, "`t_max` must satisfy"),
        ({"t_min": 0.0}, "`t_min` must satisfy"),
        ({"saves": 1}, "whole number >= 3"),
        ({"dt": 0.0}, "`dt` must satisfy"),
        ({"d": 1}, "whole number >= 2"),
        ({"n": 0}, "whole number >= 1"),
        ({"cosine": 1.5}, "`cosine` must satisfy"),
        ({"tokens": "equiangular", "rho": -0.5}, "`rho` must satisfy"),
        ({"tokens": "vmf", "concentration": -1.0}, "`concentration` must satisfy"),
        ({"tokens": "clusters", "k": 0}, "whole number >= 1"),
        ({"flow": "usa", "beta": 1000.0}, "clock='rescaled'"),
        ({"flow": "fisher-rao", "norm": "pre"}, "`norm` must be 'post'"),
        ({"flow": "fisher-rao", "rate": -1.0}, "`rate` must satisfy"),
    ],
)
def test_bad_settings_are_one_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        simulate.run(replace(SMALL, **change))


def test_one_token_is_trivial():
    data = simulate.run(replace(SMALL, n=1, saves=4))
    np.testing.assert_array_equal(data.tokens[0], data.tokens[-1])


def test_defaults_of_digits_are_their_own():
    assert resolve(Config(tokens="digits")).beta != resolve(Config()).beta
