"""Attention rules, flows, runs, coalescence, clustering and mean shift."""

from __future__ import annotations

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from hypothesis import strategies as st

import attnflow as af
from attnflow import mean_shift
from attnflow.attention import SinkhornAttention
from attnflow.coalescence.run import STATUS
from fuzz.targets.geometry import MASKS, on_sphere
from fuzz.values import Target, bad_tokens, choice, count, inf, nan, odd, real, spec, times, tokens

SMALL = spec(((2, 2), (5, 3)))
THREE = spec(((5, 3),))
EXACT = spec(
    ((2, 2), (5, 2), (5, 3)), ("uniform", "hemisphere", "clusters", "antipodal", "polygon")
)
RULES = {
    "sa": af.Attention,
    "usa": af.UnnormalizedAttention,
    "sinkhorn": SinkhornAttention,
}
weights = st.one_of(st.none(), st.lists(st.floats(0, 1), min_size=5, max_size=5))


def weighted(given, n):
    """Weights that sum to 1 where they can; what is no list of n numbers is handed on."""
    if not isinstance(given, list) or len(given) != 5:
        return given
    w = np.asarray(given[:n])
    return w / w.sum() if np.isfinite(w).all() and w.sum() > 0 else w


def attention(rule, beta, query, value, given_weights, mask, x):
    x = tokens(x)
    options = {"mask": MASKS[mask], "weights": weighted(given_weights, len(x))}
    seen = RULES[rule](beta, query, query, value, **({} if rule == "sinkhorn" else options))(x)
    seen = np.asarray(seen)
    assert seen.shape == x.shape and not np.isnan(seen).any(), "NaN"
    if rule == "sa":
        assert np.linalg.norm(seen, axis=1).max() <= abs(value) * (1 + 1e-4) + 1e-6, (
            "outside the hull"
        )


def matrices(query, key, value, beta, x):
    x = tokens(x)
    seen = np.asarray(af.QKVAttention(beta, _matrix(query), _matrix(key), _matrix(value))(x))
    assert seen.shape == x.shape and np.isfinite(seen).all()


def _matrix(given):
    return np.asarray(given) if isinstance(given, list) else given


def multi_head(betas, combine, x):
    x = tokens(x)
    seen = np.asarray(af.MultiHead([af.Attention(beta) for beta in betas], combine)(x))
    assert seen.shape == x.shape and np.isfinite(seen).all()
    assert np.linalg.norm(seen, axis=1).max() <= len(betas) * (1 + 1e-4)


def fisher_rao(beta, rate, x):
    x = tokens(x)
    w = np.full(len(x), 1 / len(x))
    velocity = af.FisherRaoFlow(beta, rate)(0.0, af.WeightedTokens(jnp.asarray(x), jnp.asarray(w)))
    highest = abs(rate) * np.exp(abs(beta)) / max(abs(beta), 1)
    assert abs(float(velocity.weights.sum())) <= 1e-5 * max(1, highest), "mass"


FLOWS = ("sa", "usa", "causal", "hardmax", "sinkhorn", "kuramoto")
TARGETS = {
    "Attention": Target(
        attention,
        {
            "rule": choice(*RULES),
            "beta": real(-100, 600),
            "query": choice(1.0, 0.5),
            "value": real(-2, 2),
            "given_weights": weights,
            "mask": choice("none", "causal"),
            "x": spec(((5, 2), (5, 3))),
        },
        2,
        {"rule": None, "mask": None, "x": None},
    ),
    "QKVAttention": Target(
        matrices,
        {
            **dict.fromkeys(
                ("query", "key", "value"),
                st.lists(st.lists(real(-3, 3), min_size=3, max_size=3), min_size=3, max_size=3),
            ),
            "beta": real(0, 50),
            "x": spec(((5, 3),)),
        },
        bad={"x": None},
    ),
    "MultiHead": Target(
        multi_head,
        {
            "betas": st.lists(real(0, 100), min_size=2, max_size=2),
            "combine": choice("sum", "mean"),
            "x": spec(((5, 3),)),
        },
        0.7,
        {"x": None, "betas": st.lists(odd, max_size=3)},
    ),
    "FisherRaoFlow": Target(
        fisher_rao,
        {"beta": real(-50, 100), "rate": real(0, 10), "x": SMALL},
        0.5,
        {"x": None, "beta": choice(nan, inf, None, "many", [], [1.0, 2.0], {}, 1j, 10**400)},
    ),
}


def solve(rule, beta, x, ts, rtol, max_steps):
    flow, norm = rule.split(", ")
    x = tokens(x)
    options = {"norm": af.norms.NORMS[norm]}
    if flow == "usa":
        options["clock"] = "rescaled"
    field = af.hardmax(**options) if flow == "hardmax" else af.FLOWS[flow](beta, **options)
    run = af.solve(
        field, x, ts, rtol=rtol, max_steps=max_steps, observe={"R": af.observables.order_parameter}
    )
    _whole(run, x, ts, field.keeps_radius)


def layers(beta, x, norm, dt, count):
    x = tokens(x)
    ts = np.arange(3) * (dt if isinstance(dt, float) and 0 < dt < 10 else 1.0)
    flow = af.sa(beta, norm=af.norms.NORMS[norm])
    _whole(
        af.solve(flow, x, ts, method=af.LayerMap(), dt=dt, max_steps=count),
        x,
        ts,
        flow.keeps_radius,
    )


def until(cosine, speed, x, beta):
    x = tokens(x)
    event = af.within_cap(cosine) if speed is None else af.stationary(speed)
    run = af.solve(af.sa(beta), x, [0.0, 5.0, 10.0], until=event)
    assert 0 < float(run.t_end) <= 10.0
    on_sphere(run.x_end, *x.shape)


def _whole(run, x, ts, keeps):
    xs = np.asarray(run.xs)
    assert xs.shape == (len(ts), *np.shape(x)) and np.isfinite(xs).all(), "not finite"
    if keeps:
        assert np.abs(np.linalg.norm(xs, axis=-1) - 1).max() < 1e-5, "off the sphere"


def solve_sde(beta, x, ts, kappa, dt, common_kappa, method):
    x = tokens(x)
    options = {"common_kappa": common_kappa, "method": method}
    run = af.solve_sde(af.sa(beta), x, ts, kappa=kappa, dt=dt, key=jr.key(0), **options)
    _whole(run, x, ts, True)


def coalesce(rule, beta, x, merge_tol, rtol, contact, t_max, perturb, seed):
    x = tokens(x)
    tree = af.coalesce(
        RULES[rule](beta),
        x,
        merge_tol=merge_tol,
        rtol=rtol,
        contact=contact,
        t_max=t_max,
        perturb=perturb,
        seed=seed,
    )
    n, merges = len(x), len(tree.pairs)
    assert 0 <= merges <= n - 1 and (tree.log10_times[1:] >= tree.log10_times[:-1]).all(), (
        "times fall"
    )
    assert not np.isnan(tree.log10_times).any() and np.isfinite(tree.energies).all(), "NaN"
    assert (np.diff(tree.energies) >= -1e-9).all(), "energy falls"
    on_sphere(tree.x_end, n - merges, x.shape[1])
    assert abs(tree.weights_end.sum() - 1) < 1e-9, "mass"
    assert tree.status in STATUS.values(), tree.status


def clustering(x, beta, n_clusters, metric, min_cluster_size):
    x = tokens(x)
    options = {
        "beta": beta,
        "n_clusters": n_clusters,
        "metric": metric,
        "min_cluster_size": min_cluster_size,
    }
    try:
        model = af.AttentionClustering(**options).fit(x)
    except ValueError as error:
        if "sklearn" in _deepest(error):  # of X scikit-learn speaks, as of any estimator's
            return str(error)
        raise
    assert model.labels_.shape == (len(x),) and set(model.labels_) == set(range(model.n_clusters_))
    assert np.isfinite(model.cluster_centers_).all() and model.beta_ > 0
    assert model.predict(x).max() < model.n_clusters_


def _deepest(error):
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename


def blur(x, beta, eta, steps):
    x = tokens(x)
    moved = np.asarray(mean_shift.blur(x, beta, eta=eta, steps=steps))
    assert np.isfinite(moved).all()


TARGETS |= {
    "solve": Target(
        solve,
        {
            "rule": choice(
                "sa, post",
                "sa, pre",
                "sa, peri",
                "sa, ngpt",
                "sa, sqrt",
                "sa, none",
                "usa, post",
                "causal, post",
                "hardmax, post",
                "sinkhorn, post",
            ),
            "beta": real(-5, 60),
            "x": THREE,
            "ts": times(exactly=3),
            "rtol": choice(None, 1e-3, 1e-6),
            "max_steps": choice(5000),
        },
        1.2,
        {"rule": None, "x": bad_tokens, "rtol": choice(-1.0, 0.0, inf, "small", None, [])},
    ),
    "solve, layers": Target(
        layers,
        {
            "beta": real(-5, 60),
            "x": SMALL,
            "norm": choice("post", "pre", "peri", "sqrt", "ngpt"),
            "dt": real(0.01, 2),
            "count": choice(100),
        },
        0.7,
        {"norm": None, "x": bad_tokens},
    ),
    "solve, until": Target(
        until,
        {
            "cosine": real(-0.9, 0.999),
            "speed": choice(None, 1e-3, 1e-1),
            "x": spec(((5, 3),), ("uniform", "hemisphere")),
            "beta": real(0, 20),
        },
        0.5,
        {"x": None},
    ),
    "solve_sde": Target(
        solve_sde,
        {
            "beta": real(0, 3),
            "x": SMALL,
            "ts": choice([0.0, 0.5, 1.0], [0.0, 0.1, 2.0]),
            "kappa": real(0.5, 1e6),
            "dt": real(0.005, 0.02),
            "common_kappa": choice(None, None, 10.0),
            "method": choice("exponential", "retraction"),
        },
        bad={"x": bad_tokens, "dt": choice(-1.0, 0.0, inf, float("nan"), "small", None, 10.0, 1e9)},
    ),
    "coalesce": Target(
        coalesce,
        {
            "rule": choice("sa", "usa"),
            "beta": real(0, 300),
            "x": EXACT,
            "merge_tol": real(1e-9, 1e-2),
            "rtol": real(1e-10, 1e-3),
            "contact": real(1e-9, 0.1),
            "t_max": choice(inf, 1.0, 1e6),
            "perturb": choice(0.0, 1e-6),
            "seed": count(0, 9),
        },
        bad={"rule": None, "x": bad_tokens},
    ),
    "AttentionClustering": Target(
        clustering,
        {
            "x": spec(((5, 2), (5, 3))),
            "beta": st.one_of(st.just("auto"), real(0.1, 1e3)),
            "n_clusters": choice(None, 1, 2, 3, 5),
            "metric": choice("cosine", "euclidean"),
            "min_cluster_size": choice("auto", 1, 2),
        },
        bad={"x": bad_tokens},
    ),
    "mean_shift.blur": Target(
        blur,
        {"x": SMALL, "beta": real(0, 500), "eta": real(0.01, 1.0), "steps": choice(1, 5)},
        0.5,
        {"x": bad_tokens},
    ),
}
