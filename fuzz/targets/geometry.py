"""The sphere, its tokens, observables, kernel sums, norms and clusters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import attnflow as af
from attnflow.analysis import clusters
from attnflow.kernels import KERNEL_SUMS, causal, exclude_self, window
from fuzz.values import Target, bad_tokens, choice, count, odd, odd_size, real, spec, tokens

SIZES, DIMENSIONS = choice(1, 2, 5, 8), choice(2, 3, 4)
MASKS = {"none": None, "causal": causal, "exclude_self": exclude_self, "window": window(1)}


def on_sphere(x: Any, n: int, d: int) -> None:
    """Assert that these are n unit tokens in d dimensions."""
    x = np.asarray(x)
    assert x.shape == (n, d), x.shape
    assert np.abs(np.linalg.norm(x, axis=-1) - 1).max() < 1e-6, "off the sphere"


def uniform(seed, n, d):
    on_sphere(af.sphere.uniform(jr.key(seed), n, d), n, d)


def hemisphere(seed, n, d):
    x = af.sphere.hemisphere(jr.key(seed), n, d)
    on_sphere(x, n, d)
    assert (x[:, 0] > 0).all(), "outside the hemisphere"


def vmf(seed, n, d, concentration):
    on_sphere(af.sphere.vmf(jr.key(seed), n, d, concentration=concentration), n, d)


def equiangular(n, rho, d):
    x = np.asarray(af.sphere.equiangular(n, rho, d=d))
    on_sphere(x, n, x.shape[1])
    cosines = (x @ x.T)[~np.eye(n, dtype=bool)]
    assert np.allclose(cosines, rho, atol=1e-7), "cosines are not rho"


def near_clusters(seed, n, d, k, spread):
    on_sphere(af.sphere.clusters(jr.key(seed), n, d, k=k, spread=spread), n, d)


def polygon(n, d):
    on_sphere(af.sphere.polygon(n, d), n, d)


def normalize(x, log10_scale):
    x = tokens(x) * 10.0**log10_scale
    on_sphere(af.sphere.normalize(x), *x.shape)


def exp_and_log(x, y):
    x, y = tokens(x), tokens(y)
    angle = np.asarray(af.sphere.distance(x, y))
    assert ((angle >= 0) & (angle <= np.pi + 1e-6)).all(), "no angle"
    there = np.asarray(af.sphere.exp(x, af.sphere.log(x, y)))
    apart = np.pi - angle > 1e-3  # antipodal tokens have no direction
    assert np.abs(there - y)[apart].max(initial=0) < 1e-5, "exp(log) is not the identity"


def hemisphere_test(x):
    x = tokens(x)
    found = af.sphere.hemisphere_test(x)
    if found.inside:
        assert (np.asarray(x) @ found.direction).min() > 0, "no witness"
    else:
        assert found.residual < 1e-6, "no certificate"


def cluster_labels(x, cosine):
    x = tokens(x)
    labels = clusters.cluster_labels(x, cosine=cosine)
    assert labels.shape == np.shape(x)[:-1], labels.shape
    k = int(clusters.cluster_count(labels).max())
    assert 1 <= k <= labels.shape[-1] and clusters.cluster_sizes(labels).sum() == labels.size


@jax.jit
def _observed(x, beta):
    own = {name: f(x) for name, f in af.observables.OBSERVABLES.items()}
    own["scaled_energy"] = af.observables.scaled_energy(x, beta)
    return own | {"entropy": af.observables.attention_entropy(x, beta)}


def observables(x, beta):
    seen = {
        name: np.asarray(value) for name, value in _observed(jnp.asarray(tokens(x)), beta).items()
    }
    n, d, eps = len(seen["entropy"]), np.shape(tokens(x))[1], 1e-5
    assert all(np.isfinite(value).all() for value in seen.values()), "not finite"
    assert -1 / max(n - 1, 1) - eps <= seen["mean_cosine"] <= 1 + eps, "rho"
    assert 1 - eps <= seen["effective_rank"] <= min(n, d) + eps, "rank"
    assert 0 <= seen["order_parameter"] <= 1 + eps, "R"
    assert 0 <= seen["scaled_energy"] <= 1 + 1e-4, "scaled energy"
    assert (seen["entropy"] >= -1e-3).all() and (seen["entropy"] <= np.log(n) + 1e-3).all(), (
        "entropy"
    )


def kernel_sum(x, name, beta, mask, seed):
    x, rng = jnp.asarray(tokens(x)), np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(len(x))) if seed % 2 else None
    mean, log_z = KERNEL_SUMS[name](x, x, x, beta, weights=weights, mask=MASKS[mask])
    mean, log_z = np.asarray(mean, float), np.asarray(log_z, float)
    seen = np.ones((len(x), len(x)), bool)
    if MASKS[mask] is not None:
        seen = np.asarray(MASKS[mask](*np.mgrid[: len(x), : len(x)])) & seen
    some = seen.any(axis=1)
    scores = np.where(seen, beta * np.asarray(x, float) @ np.asarray(x, float).T, -np.inf)
    scores += 0 if weights is None else np.log(weights)
    want = np.full(len(x), -np.inf)
    want[some] = np.logaddexp.reduce(scores[some], axis=1)
    shares = np.exp(scores[some] - want[some, None])
    eps = 1e-3 if x.dtype == jnp.float32 else 1e-7
    assert np.abs(log_z[some] - want[some]).max(initial=0) <= eps * max(1, abs(beta)), "log Z"
    assert np.abs(mean[some] - shares @ np.asarray(x, float)).max(initial=0) < 10 * eps * max(
        1, abs(beta) / 100
    )
    assert (log_z[~some] == -np.inf).all() and (mean[~some] == 0).all(), "rows that see nothing"


def norm(x, scheme, t, eta, parameter):
    x = tokens(x)
    given = {"mix": af.norms.mix_ln, "ngpt": af.norms.ngpt}
    rule = given[scheme](parameter) if scheme in given else af.norms.NORMS[scheme]
    seen = af.Attention(1.0)(x)
    velocity, after = rule(t, x, seen), np.asarray(rule.step(t, x, seen, eta))
    assert np.isfinite(velocity).all() and np.isfinite(after).all()
    if rule.keeps_radius:
        assert np.abs(np.sum(np.asarray(x) * velocity, axis=1)).max() < 1e-5, "not tangential"
        on_sphere(after, *x.shape)


def event(name, value, x):
    x = jnp.asarray(tokens(x))
    margin = getattr(af, name)(value)(0.0, x, af.sa(1.0)(0.0, x))
    assert np.isfinite(margin)


def log_times(t_max, count, t_min):
    ts = np.asarray(af.log_times(t_max, count, t_min=t_min))
    assert ts.shape == (count,) and ts[0] == 0 and (np.diff(ts) > 0).all()


good = spec()
TARGETS = {
    "sphere.uniform": Target(
        uniform,
        {"seed": count(0, 9), "n": SIZES, "d": DIMENSIONS},
        bad={"seed": None, "n": odd_size, "d": odd_size},
    ),
    "sphere.hemisphere": Target(
        hemisphere,
        {"seed": count(0, 9), "n": SIZES, "d": DIMENSIONS},
        bad={"seed": None, "n": odd_size, "d": odd_size},
    ),
    "sphere.vmf": Target(
        vmf,
        {"seed": count(0, 9), "n": choice(1, 5), "d": DIMENSIONS, "concentration": real(0, 1e6)},
        bad={"seed": None, "n": odd_size, "d": odd_size},
    ),
    "sphere.equiangular": Target(
        equiangular, {"n": choice(2, 3, 5), "rho": real(-0.25, 1.0), "d": choice(None, 5, 8)}
    ),
    "sphere.clusters": Target(
        near_clusters,
        {
            "seed": count(0, 9),
            "n": SIZES,
            "d": DIMENSIONS,
            "k": choice(1, 2, 3),
            "spread": real(0, 10),
        },
        bad={"seed": None, "n": odd_size, "d": odd_size},
    ),
    "sphere.polygon": Target(polygon, {"n": SIZES, "d": DIMENSIONS}, 0.5),
    "sphere.normalize": Target(
        normalize, {"x": good, "log10_scale": real(-15, 15)}, 0.5, {"x": None, "log10_scale": None}
    ),
    "sphere.exp, log, distance": Target(
        exp_and_log, {"x": spec(((5, 3),)), "y": spec(((5, 3),))}, 0.5, {"x": None, "y": None}
    ),
    "sphere.hemisphere_test": Target(hemisphere_test, {"x": good}, bad={"x": bad_tokens}),
    "analysis.cluster_labels": Target(
        cluster_labels, {"x": good, "cosine": real(-0.99, 1.0)}, bad={"x": bad_tokens}
    ),
    "observables": Target(
        observables, {"x": good, "beta": real(0, 700)}, 1.5, {"x": None, "beta": None}
    ),
    "kernels": Target(
        kernel_sum,
        {
            "x": good,
            "name": choice("auto", "dense"),
            "beta": real(-1000, 1000),
            "mask": choice(*MASKS),
            "seed": count(0, 9),
        },
        2,
        {"x": None, "seed": None, "name": None, "mask": None, "beta": None},
    ),
    "kernels.fourier": Target(
        kernel_sum,
        {
            "x": spec(
                ((5, 2), (8, 2)),
                KINDS64 := ("uniform", "clusters", "duplicates", "antipodal", "polygon"),
            ),
            "name": choice("fourier"),
            "beta": choice(0.0, 0.1, 1.0, 50.0, 1000.0),
            "mask": choice("none"),
            "seed": count(0, 9),
        },
        0.5,
        dict.fromkeys(("x", "name", "beta", "mask", "seed")),
    ),
    "kernels.harmonics": Target(
        kernel_sum,
        {
            "x": spec(((5, 3), (8, 3)), KINDS64),
            "name": choice("harmonics"),
            "beta": choice(0.0, 0.1, 1.0, 50.0),
            "mask": choice("none"),
            "seed": count(0, 9),
        },
        0.5,
        dict.fromkeys(("x", "name", "beta", "mask", "seed")),
    ),
    "norms": Target(
        norm,
        {
            "x": good,
            "scheme": choice(*af.norms.NORMS),
            "t": real(0, 1e6),
            "eta": real(0, 10),
            "parameter": real(0, 10),
        },
        1.5,
        {
            "x": None,
            "scheme": None,
            "t": None,
            "eta": None,
            "parameter": odd.filter(lambda value: not isinstance(value, list)),
        },
    ),
    "events": Target(
        event,
        {"name": choice("within_cap", "stationary"), "value": real(1e-6, 0.999), "x": good},
        0.7,
        {"x": None, "name": None},
    ),
    "log_times": Target(
        log_times,
        {"t_max": real(1, 1e300), "count": choice(3, 5, 9), "t_min": real(1e-6, 0.5)},
        0.7,
    ),
}
