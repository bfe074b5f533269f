"""The design: numbers of the theory called directly, monotone facts, both sizes, a real small Transformer."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest

from attnflow.cli import main
from attnflow.experiments import design, design_tables
from attnflow.experiments.design import NORMS, Config
from attnflow.experiments.design_measure import STACKS, measure, shrink
from attnflow.theory import long_context, normalization, random_weights

GPT2 = Config()
LARGE = Config(layers=80, width=8192, heads=64, context=8192)
SMALL = Config(layers=4, width=64, heads=4, context=64, norm="mix", activation="relu", rho0=0.0)


@pytest.fixture(scope="module")
def gpt2():
    return design.run(GPT2)


@pytest.fixture(scope="module")
def large():
    return design.run(LARGE)


@pytest.fixture(scope="module")
def small():
    return design.run(SMALL)


def test_the_schemes_are_those_of_theory():
    assert normalization.SCHEMES[:-1] == NORMS


def test_open_fields():
    assert design.resolve(GPT2).beta == 8.0 and design.resolve(GPT2).tau == 3
    assert design.resolve(replace(GPT2, beta=2, tau=0)) == replace(GPT2, beta=2.0, tau=0)
    assert design.resolve(Config(layers=1)).tau == 0
    assert design.resolve(LARGE).beta == pytest.approx(128**0.5)


@pytest.mark.parametrize("norm", NORMS)
def test_aligned_budgets_are_those_of_theory(gpt2, large, norm):
    for data in (gpt2, large):
        a, one = data.attrs, data.sel(norm=norm)
        want = {
            beta: normalization.depth_budget(
                norm, a["context"], beta, 0.9, rho0=0.1, tau=a["tau"], alpha=0.05,
                max_layers=10 * a["layers"],
            )
            for beta in (a["beta"], float(data.beta[20]))
        }  # fmt: skip
        assert float(one.budget_aligned) == want[a["beta"]]
        assert float(one.budget_curve[20]) == want[float(data.beta[20])]
        path = normalization.layer_course(
            norm, 0.9, layers=a["layers"], n=a["context"], beta=a["beta"], tau=a["tau"], alpha=0.05
        )
        np.testing.assert_array_equal(one.gap_aligned, path.gap)


@pytest.mark.parametrize("norm", NORMS)
def test_fresh_weights_are_those_of_theory(gpt2, norm):
    """Usual logits of gain 1 have variance 1."""
    path = random_weights.random_layer_course(
        norm, 0.9, layers=120, n=1024, variance=1.0, activation="gelu", tau=3, alpha=0.05
    )
    one = gpt2.sel(norm=norm)
    np.testing.assert_allclose(one.gap_init, path.gap[:13], rtol=1e-12)
    there = np.flatnonzero(path.gap <= 1 - 0.9)
    assert float(one.budget_init) == (there[0] if len(there) else np.inf)


def test_scores_vary_with_scale_and_gain():
    """Twice the scale and gain 2: variance 16, gain 4 of V and O."""
    config = design.resolve(replace(SMALL, beta=8.0, gain=2.0))
    path = random_weights.random_layer_course(
        "pre", 1.0, layers=3, n=64, variance=16.0, gain=4.0, activation="relu"
    )
    np.testing.assert_allclose(design.random_course(config, "pre", 3, 64), path.gap, rtol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("config", [GPT2, LARGE, replace(GPT2, radius=3.0, rho0=0.4)])
def test_the_least_beta_keeps_all_layers_and_no_less_does(norm, config):
    """To 1e-6; 0 where any scale does."""
    config = design.resolve(config)
    beta = design.least_beta(config, norm, config.context)
    budget = lambda scale: normalization.depth_budget(
        norm, config.context, scale, 0.9, rho0=config.rho0, tau=config.tau, alpha=0.05,
        radius=config.radius if norm in design.GROWING else 1.0, max_layers=config.layers,
    )  # fmt: skip
    assert budget(beta) > config.layers
    assert beta == 0 or budget((1 - 2e-6) * beta) <= config.layers


def test_what_grows(gpt2, large, small):
    for data in (gpt2, large, small):
        curve = data.budget_curve.values
        assert (curve[:, 1:] >= curve[:, :-1]).all()  # the budget with beta: bisection may be used
        assert (data.cosine_curve.diff("gamma") <= 0).all()
        assert (
            data.cosine_curve.sel(branch="block") <= data.cosine_curve.sel(branch="attention")
        ).all()
        for name in ("gap_init", "gap_aligned"):
            assert (data[name].diff("layer") <= 1e-15).all()
        for name in ("layers_beta", "critical_beta", "recommended_beta"):
            assert (data[name].diff("context") >= 0).all()
        assert (data.recommended_curve.diff("curve_context") >= 0).all()
        assert (data.recommended_beta >= data.layers_beta).all()
        assert (data.recommended_beta >= data.critical_beta).all()


def test_one_layer_is_c_n(gpt2):
    cosine = long_context.output_cosine(0.1, n=1024, beta=8.0)
    assert float(gpt2.cosine.sel(branch="attention")) == cosine
    block = long_context.output_cosine(0.1, n=1024, beta=8.0, eta=1.0)
    assert float(gpt2.cosine.sel(branch="block")) == block
    delta = (math.exp(7.2) - 1) / (math.exp(7.2) + 1023)
    weight = math.exp(7.2) / (math.exp(7.2) + 1023)
    assert float(gpt2.self_weight) == pytest.approx(weight, rel=1e-14)
    mean = 0.1 + 0.9 / 1024
    assert cosine == pytest.approx(1 - delta**2 * 0.9 / (delta**2 + (1 - delta**2) * mean))
    here = gpt2.sel(context=1024)
    assert float(here.critical_beta) == pytest.approx(math.log(1024) / 0.9, rel=1e-14)
    for c in design.WANTED:
        got = long_context.output_cosine(0.1, n=1024, beta=float(gpt2.wanted_beta.sel(wanted=c)))
        np.testing.assert_allclose(got, c, rtol=1e-12)


def test_long_residual_streams_take_small_steps():
    data = design.run(replace(SMALL, norm="pre", radius=4.0))
    want = long_context.output_cosine(0.0, n=64, beta=4.0, eta=0.25)
    assert float(data.cosine.sel(branch="block")) == want


def test_negative_cosines():
    """More tokens cannot have them, and fresh weights begin at 0."""
    data = design.run(replace(SMALL, context=4, rho0=-0.3))
    here, there = data.sel(context=4), data.sel(context=16)
    assert float(here.critical_beta) == pytest.approx(math.log(4) / 1.3)
    assert float(there.critical_beta) == pytest.approx(math.log(16))
    assert (data.gap_aligned[:, 0] == 1.3).all() and (data.gap_init[:, 0] == 1.0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "ngpt", "alpha": 1.0, "beta": 0.0},
        {"norm": "ngpt", "alpha": 0.0},
        {"layers": 1, "activation": "none"},
        {"context": 2**40, "layers": 2},
        {"beta": 24.0},
        {"rho0": 0.89},
    ],
)
def test_ends_of_the_ranges(changes):
    """No warning, no empty panel, plain JSON."""
    data = design.run(replace(SMALL, **changes))
    design.draw(data).draw_without_rendering()
    assert "Recommended" in design.summary(data)
    json.dumps(design.numbers(data), allow_nan=False)


def test_contexts_of_both_sizes(gpt2, large):
    assert gpt2.context.values.tolist() == [256, 1024, 4096, 16384, 65536, 131072]
    assert large.context.values.tolist() == [2048, 8192, 32768, 131072]


def test_verdicts_and_regimes(gpt2, large):
    word = lambda data, norm: design_tables.verdict(data.sel(norm=norm))
    assert [word(gpt2, norm) for norm in ("post", "pre", "ln-scaling")] == [
        "COLLAPSES",
        "WATCH",
        "OK",
    ]
    assert [word(large, norm) for norm in ("pre", "ngpt")] == ["COLLAPSES", "WATCH"]
    shallow = gpt2.sel(norm="pre").copy()
    shallow["budget_aligned"], shallow["budget_init"] = 100.0, 23.0
    assert design_tables.verdict(shallow) == "WATCH"
    shallow["budget_init"] = 24.0
    assert design_tables.verdict(shallow) == "OK"
    for weight, want in ((0.05, "AVERAGES"), (0.5, "CRITICAL"), (0.95, "KEEPS TOKENS APART")):
        assert design_tables.regime(gpt2.assign(self_weight=weight)) == want


@pytest.mark.parametrize("size", ["gpt2", "large", "small"])
def test_figure_table_and_numbers(size, request):
    data = request.getfixturevalue(size)
    figure = design.draw(data)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.draw_without_rendering()
    assert all(ax.lines or ax.texts for ax in figure.axes)
    text = design.summary(data)
    assert len(text.splitlines()) <= 40
    assert all(norm in text for norm in NORMS)
    values = json.loads(json.dumps(design.numbers(data), allow_nan=False))
    beta = float(data.recommended_beta.sel(context=data.attrs["context"]))
    assert values["recommended"] == beta
    assert values["factor"] == pytest.approx(
        beta / (data.attrs["width"] / data.attrs["heads"]) ** 0.5
    )
    assert f"by {values['factor']:.2f}\n" in text


def test_first_lines_are_the_answer(gpt2, large):
    assert design.summary(gpt2).splitlines()[:4] == [
        "12 layers, width 768, 12 heads, context 1024, norm pre, MLP gelu: WATCH",
        "",
        "Fresh weights      cosine 0.762 after layer 12; layers until 0.9: 39 (3.25x)",
        "Aligned heads      cosine 0.930 after layer 12; layers until 0.9: 11 (0.92x)",
    ]
    assert "> 160 (> 2.00x)" in design.summary(large)


def test_every_number_says_what_it_is(gpt2):
    assert all(gpt2[name].attrs["long_name"] for name in gpt2.data_vars)
    assert gpt2.attrs["units"] == "dimensionless"


@pytest.mark.parametrize(
    ("norm", "activation", "gain"),
    [("pre", "gelu", 1.0), ("mix", "relu", 2.0), ("ngpt", "none", 1.0)],
)
def test_a_real_transformer_follows_its_theory(norm, activation, gain):
    """Four standard errors, derived as in the claim `random-layers`, and four of those measured, with O(1/n).

    What tokens share is multiplied by chi^2_d/d in each sublayer, and moves the cosine by at most 1/4 of that.
    """
    config = design.resolve(replace(GPT2, norm=norm, activation=activation, gain=gain))
    data, sizes = measure(config)
    assert sizes == {"small_width": 256, "small_context": 256}
    rho, theory, error = (data[f"measured{k}"][1] for k in ("", "_theory", "_error"))
    np.testing.assert_allclose(rho[0], 0.1, rtol=1e-10)
    assert np.abs(rho - theory).max() < 4 * 0.25 * (2 * 2 * config.layers / 256 / STACKS) ** 0.5
    assert (np.abs(rho - theory) < 4 * error + 1 / 256).all()
    assert (error[1:] > 0).all()


def test_a_small_transformer_keeps_head_size_and_variance():
    small = shrink(design.resolve(replace(LARGE, beta=2 * 128**0.5)))
    assert (small.layers, small.width, small.heads, small.context) == (24, 256, 2, 256)
    assert small.beta == pytest.approx(2 * 128**0.5) and small.tau == 6
    odd = shrink(design.resolve(Config(layers=4, width=300, heads=3, context=64)))
    assert odd.heads == 1 and odd.beta == pytest.approx(16.0)


def test_measured_runs_are_drawn_and_told():
    data = design.run(replace(SMALL, norm="pre", measure=True))
    design.draw(data).draw_without_rendering()
    assert "Measured, width 64, 64 tokens, layer 4" in design.summary(data)
    json.dumps(design.numbers(data), allow_nan=False)


def test_kept_and_shown(tmp_path, capsys):
    words = ["run", "design", "--layers", "2", "--width", "64", "--heads", "4", "--context", "16"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 layers, width 64") and "figure.png" in out


def test_import_is_light():
    """`attnflow run design --help` needs the config only."""
    code = (
        "import sys; import attnflow.experiments.design; "
        "print([m for m in ('jax', 'xarray', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "`layers` must be a whole number >= 1"),
        ({"heads": 0}, "`heads` must be a whole number >= 1"),
        ({"heads": 7}, "`heads` must divide width=768, but heads=7"),
        ({"width": 1, "heads": 1}, "`width` must be a whole number >= 2"),
        ({"context": 1}, "`context` must be a whole number >= 2"),
        ({"context": 2**60}, "`context` must satisfy"),
        ({"norm": "prre"}, "`norm` must be one of .* Did you mean 'pre'?"),
        ({"activation": "gellu"}, "`activation` must be one of .* Did you mean 'gelu'?"),
        ({"rho0": -0.5}, "`rho0` must satisfy rho0 > -0.0009"),
        ({"rho0": 1.0}, "`rho0` must satisfy .* rho0 < 1"),
        ({"rho0": 0.9}, "`rho_max` must satisfy rho_max > 0.9"),
        ({"rho_max": 1.0}, "`rho_max` must satisfy .* rho_max < 1"),
        ({"rho0": float("nan")}, "`rho0` must be finite"),
        ({"beta": -1.0}, "`beta` must satisfy beta >= 0"),
        ({"beta": float("inf")}, "`beta` must be finite"),
        ({"beta": 65.0}, "`beta` must satisfy .* beta <= 64.* at most 8"),
        ({"gain": 9.0}, "`gain` must satisfy .* gain <= 8"),
        ({"gain": 0.0}, "`gain` must satisfy gain > 0"),
        ({"alpha": -0.1}, "`alpha` must satisfy alpha >= 0"),
        ({"alpha": 1.5}, "`alpha` must satisfy .* alpha <= 1"),
        ({"radius": 0.0}, "`radius` must satisfy radius > 0"),
        ({"tau": 12}, "`tau` must satisfy tau <= 11.* norm post"),
        ({"tau": -1}, "`tau` must be a whole number >= 0"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
    ],
)  # fmt: skip
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        design.run(Config(**changes))
    with pytest.raises(ValueError, match=message):
        design.resolve(Config(**changes))
