"""Transformer blocks: placements against theory, sublayers against formulas, symmetries, depth."""

import subprocess
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import erf

import attnflow as af
from attnflow import layers
from attnflow.layers import ACTIVATIONS, NORMALIZERS, PLACEMENTS, WEIGHTS
from attnflow.observables import effective_rank, energy, mean_cosine

N, D, HEADS = 6, 8, 2
X0 = jr.normal(jr.key(7), (N, D))
UNIT = af.sphere.normalize(X0)


def start(model):
    """Tokens that a model accepts: of unit length where theory wants them so."""
    block = getattr(model, "blocks", model)
    on_sphere = getattr(block.attention.norm, "kind", None) == "sphere"
    return UNIT if on_sphere else X0


def model_of(depth=3, seed=0, **options):
    if options.get("placement") == "mix":
        options.setdefault("tau", 1)
    return layers.transformer(jr.key(seed), D, depth, **{"heads": HEADS, **options})


# --------------------------------------------------------------------------- placements: THEORY 8


def bare(placement, d, **options):
    """Block of theory: one head, Q = K = V = O = I, N x = x/|x|, no MLP."""
    tau = {"tau": 2} if placement == "mix" else {}
    return layers.block(
        jr.key(0), d, weights="identity", beta=2.0, mlp=None, normalizer="sphere",
        placement=placement, alpha=0.7, **tau, **options,
    )  # fmt: skip


SCHEMES = {**af.NORMS, "ngpt": af.norms.ngpt(0.7), "mix": af.norms.mix_ln(2.0)}


@pytest.mark.parametrize(
    ("placement", "radius", "cosine", "grown"),
    [
        ("post", 1.0, 0.283433106795, 1.0),
        ("pre", 1.4, 0.262052717750, 1.581732916312),
        ("mix", 1.0, 0.283433106795, 1.0),
        ("peri", 1.4, 0.289015626118, 1.675922644342),
        ("ngpt", 1.0, 0.306558432759, 1.0),
        ("sqrt", 1.0, 0.283433106795, 1.0),
        ("ln-scaling", 1.4, 0.262052717750, 1.581732916312),
    ],
)
def test_one_layer_of_equiangular_tokens(placement, radius, cosine, grown):
    """THEORY 8.4, printed to 12 digits; scaled schemes start as Post- and Pre-LN do."""
    x = bare(placement, 9, eta=0.3)(0, radius * af.sphere.equiangular(6, 0.2, d=9))
    radii = np.linalg.norm(x, axis=1)
    theta = np.asarray(x) / radii[:, None]
    np.testing.assert_allclose((theta @ theta.T)[~np.eye(6, dtype=bool)], cosine, atol=1e-12)
    np.testing.assert_allclose(radii, grown, atol=1e-12)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("t", [0, 3])
def test_bare_blocks_are_the_layers_of_norms(placement, t):
    """At t = 3 the scaled schemes are halved, and `mix` has gone over to Pre-LN."""
    radius = 1.0 if placement in ("post", "ngpt", "sqrt", "mix") else 1.4
    flow = af.sa(2.0, norm=SCHEMES[placement])
    got = bare(placement, D, eta=0.3)(t, radius * UNIT)
    np.testing.assert_allclose(got, flow.layer(t, radius * UNIT, 0.3), atol=1e-14)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_run_of_bare_blocks_is_the_run_of_layer_maps(placement):
    """Twelve layers, each within 1e-15 of that of `norms`, which neither parts nor stretches much."""
    depth = 12
    model = layers.repeat(bare(placement, D), depth)
    run = layers.forward(model, UNIT)
    flow, ts = af.sa(2.0, norm=SCHEMES[placement]), jnp.arange(depth + 1.0)
    maps = af.solve(flow, UNIT, ts, method=af.LayerMap(), dt=1.0)
    np.testing.assert_allclose(run.xs, maps.xs, rtol=1e-12, atol=1e-12)


def test_names_are_those_of_norms():
    assert set(PLACEMENTS) == set(af.NORMS)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_placement_of_two_sublayers(placement):
    """The table of `block`, written out for attention f and MLP g with norms of their own."""
    block = layers.block(
        jr.key(1), D, heads=HEADS, placement=placement, eta=0.3, alpha=0.7,
        **({"tau": 2} if placement == "mix" else {}),
    )  # fmt: skip
    gains = iter(jr.normal(jr.key(2), (4, D)))
    norms = lambda b: [
        n for s in (b.attention, b.mlp) for n in (s.norm, s.output_norm) if n is not None
    ]
    for n in range(len(norms(block))):
        gain = next(gains)
        block = eqx.tree_at(lambda b, n=n: norms(b)[n].gain, block, gain)
        block = eqx.tree_at(lambda b, n=n: norms(b)[n].bias, block, gain[::-1])

    def after(t, x, s):
        f, norm, out, c = s.function, s.norm, s.output_norm, 0.3 / np.sqrt(t + 1)
        early = placement == "mix" and t < 2
        return {
            "post": lambda: norm(x + 0.3 * f(x)),
            "pre": lambda: x + 0.3 * f(norm(x)),
            "mix": lambda: norm(x + 0.3 * f(x)) if early else x + 0.3 * f(norm(x)),
            "peri": lambda: x + 0.3 * out(f(norm(x))),
            "ngpt": lambda: norm(x + 0.3 * 0.7 * (out(f(x)) - x)),
            "sqrt": lambda: norm(x + c * f(x)),
            "ln-scaling": lambda: x + c * f(norm(x)),
            "none": lambda: x + 0.3 * f(x),
        }[placement]()

    for t in (1, 2):
        want = after(t, after(t, X0, block.attention), block.mlp)
        np.testing.assert_allclose(block(t, X0), want, atol=1e-13)


# ---------------------------------------------------------------------------------------- sublayers


def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_heads_against_numpy(tied, causal):
    """Every bias there, heads of different widths for keys (3) and values (5)."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape)
    query, key, value, output = draw(6, D), draw(6, D), draw(10, D), draw(D, 10)
    biases = draw(6), draw(6), draw(10), draw(D)
    mask = af.kernels.causal if causal else None
    heads = layers.Heads(query, None if tied else key, value, output, *biases, heads=2, mask=mask)
    x = np.asarray(X0)
    q, k, v = x @ query.T + biases[0], x @ key.T + biases[1], x @ value.T + biases[2]
    k = q if tied else k
    means = []
    for h in range(2):
        scores = q[:, 3 * h : 3 * h + 3] @ k[:, 3 * h : 3 * h + 3].T / np.sqrt(3)
        if causal:
            scores[~np.tri(N, dtype=bool)] = -np.inf
        means.append(softmax(scores) @ v[:, 5 * h : 5 * h + 5])
    np.testing.assert_allclose(heads(X0), np.hstack(means) @ output.T + biases[3], atol=1e-12)


def test_heads_are_the_multi_head_attention_of_the_library():
    """There the output matrix is folded into each head's V."""
    block = layers.block(jr.key(0), D, heads=HEADS, beta=1.3, mlp=None)
    f, width = block.attention.function, D // HEADS
    rows = [slice(h * width, (h + 1) * width) for h in range(HEADS)]
    heads = [
        af.Attention(1.3, f.query[r], f.key[r], f.output[:, r] @ f.value[r], mask=None)
        for r in rows
    ]
    np.testing.assert_allclose(f(X0), af.MultiHead(heads)(X0), atol=1e-12)


def test_tied_keys_are_queries_also_for_many_tokens():
    """From 1025 tokens on `dense` scores each pair once if q and k are one array."""
    x = jr.normal(jr.key(3), (1100, 4))
    tied = layers.block(jr.key(0), 4, heads=2, tied=True, mlp=None).attention.function
    assert tied.key is None
    given = eqx.tree_at(lambda f: f.key, tied, tied.query, is_leaf=lambda leaf: leaf is None)
    np.testing.assert_allclose(tied(x), given(x), atol=1e-12)
    batch = jax.vmap(tied)(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(batch[1], tied(2 * x), atol=1e-12)


def test_the_default_logit_scale_is_that_of_a_head():
    free = layers.block(jr.key(0), D, heads=HEADS)
    given = layers.block(jr.key(0), D, heads=HEADS, beta=1 / np.sqrt(D / HEADS))
    np.testing.assert_allclose(free(0, X0), given(0, X0), atol=1e-14)
    assert (
        jnp.abs(layers.block(jr.key(0), D, heads=HEADS, beta=1.0)(0, X0) - free(0, X0)).max() > 0.01
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_against_numpy(activation):
    rng = np.random.default_rng(1)
    up, gate, down = rng.normal(size=(5, D)), rng.normal(size=(5, D)), rng.normal(size=(D, 5))
    up_bias, gate_bias, down_bias = rng.normal(size=5), rng.normal(size=5), rng.normal(size=D)
    gated = activation == "swiglu"
    mlp = layers.MLP(
        up, down, gate if gated else None, up_bias, down_bias, gate_bias if gated else None,
        activation=activation,
    )  # fmt: skip
    x = np.asarray(X0)
    h, g = x @ up.T + up_bias, x @ gate.T + gate_bias
    hidden = {
        "gelu": h * (1 + erf(h / np.sqrt(2))) / 2,
        "relu": np.maximum(h, 0),
        "swiglu": g / (1 + np.exp(-g)) * h,
    }[activation]
    np.testing.assert_allclose(mlp(X0), hidden @ down.T + down_bias, atol=1e-12)


@pytest.mark.parametrize("kind", NORMALIZERS)
def test_normalizers_against_numpy(kind):
    x, eps = np.asarray(X0), 0.1
    gain, bias = np.linspace(-1, 2, D), np.linspace(3, 4, D)
    centered = x - x.mean(axis=1, keepdims=True)
    plain = {
        "layer-norm": centered / np.sqrt(x.var(axis=1, keepdims=True) + eps),
        "rms-norm": x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps),
        "sphere": x / np.linalg.norm(x, axis=1, keepdims=True),
    }[kind]
    np.testing.assert_allclose(layers.Normalizer(kind, eps=eps)(X0), plain, atol=1e-14)
    full = layers.Normalizer(kind, gain, bias, eps)(X0)
    np.testing.assert_allclose(full, gain * plain + bias, atol=1e-14)


@pytest.mark.parametrize("kind", NORMALIZERS)
def test_normalizers_forget_scale_and_layer_norm_forgets_the_mean(kind):
    norm = layers.Normalizer(kind, eps=0.0)
    np.testing.assert_allclose(norm(37 * X0), norm(X0), atol=1e-14)
    shifted = jnp.abs(norm(X0 + 2.5) - norm(X0)).max()
    assert shifted < 1e-14 if kind == "layer-norm" else shifted > 0.1
    zero = jnp.zeros((1, D))
    usual = layers.Normalizer(kind)
    np.testing.assert_array_equal(usual(zero), 0)
    assert jnp.isfinite(jax.jacobian(usual)(zero)).all()


# ------------------------------------------------------------------------------------------ weights

VARIANCE = {
    "kaiming": (lambda rows, columns: 2 / columns, 3.0),
    "gaussian": (lambda rows, columns: 1 / columns, 3.0),
    "uniform": (lambda rows, columns: 1 / (3 * columns), 1.8),
}
"""Variance of an entry, and its kurtosis: the error of the sample variance is sqrt((kurtosis - 1)/N)."""


@pytest.mark.parametrize("shape", [(300, 200), (100, 400)])
@pytest.mark.parametrize("name", VARIANCE)
def test_independent_entries(name, shape):
    matrix = WEIGHTS[name](jr.key(0), shape)
    variance, kurtosis = VARIANCE[name]
    wanted, count = variance(*shape), matrix.size
    assert matrix.shape == shape
    assert abs(matrix.mean()) < 5 * np.sqrt(wanted / count)
    assert abs(matrix.var() / wanted - 1) < 5 * np.sqrt((kurtosis - 1) / count)
    if name == "uniform":
        assert jnp.abs(matrix).max() <= 1 / np.sqrt(shape[1])


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
def test_orthogonal_matrices(shape):
    """Haar measure has no sign of its own: the trace has mean 0 and variance 1 (square), here of 400."""
    draws = jax.vmap(lambda key: WEIGHTS["orthogonal"](key, shape))(jr.split(jr.key(0), 400))
    short = min(shape)
    gram = lambda a: a @ a.T if shape[0] <= shape[1] else a.T @ a
    assert jnp.abs(jax.vmap(gram)(draws) - jnp.eye(short)).max() < 1e-12
    assert abs(jnp.trace(draws, axis1=1, axis2=2).mean()) < 5 / np.sqrt(400)


def test_goe_is_symmetric_and_fills_the_semicircle():
    """lambda_max = 2 + TW d^(-2/3), TW within [-5, 3] but for a chance of 1e-3; tr A^2/d = 1 + 1/d.

    tr A^2 is a sum of d^2/2 independent squares: its relative error is 2/d.
    """
    d = 300
    a = WEIGHTS["goe"](jr.key(0), (d, d))
    np.testing.assert_array_equal(a, a.T)
    values = np.linalg.eigvalsh(a)
    for edge in (-values[0], values[-1]):
        assert -5 * d ** (-2 / 3) < edge - 2 < 3 * d ** (-2 / 3)
    assert abs((values**2).mean() / (1 + 1 / d) - 1) < 5 * 2 / d
    inside = (
        np.abs(values) < 1
    )  # a share of 1/3 + sqrt(3)/(2 pi); eigenvalues repel, error O(log d/d)
    assert abs(inside.mean() - 1 / 3 - np.sqrt(3) / (2 * np.pi)) < np.log(d) / d
    assert abs(jnp.diag(a).var() / (2 / d) - 1) < 5 * np.sqrt(2 / d)


def test_initialisers_go_where_they_are_named():
    block = layers.block(
        jr.key(0), 4, weights="goe", value="identity", output="orthogonal", mlp="swiglu", hidden=6,
        mlp_weights=lambda key, shape, dtype: jnp.full(shape, 2.0, dtype), dtype=jnp.float32,
    )  # fmt: skip
    f, g = block.attention.function, block.mlp.function
    np.testing.assert_array_equal(f.query, f.query.T)
    assert jnp.abs(f.query - f.key).max() > 0.1
    np.testing.assert_array_equal(f.value, jnp.eye(4))
    np.testing.assert_allclose(f.output @ f.output.T, jnp.eye(4), atol=1e-6)
    assert (g.up.shape, g.gate.shape, g.down.shape) == ((6, 4), (6, 4), (4, 6))
    assert (g.up == 2).all()
    assert {leaf.dtype for leaf in jax.tree.leaves((f, g))} == {jnp.dtype("float32")}
    assert layers.block(jr.key(0), 4).mlp.function.up.shape == (16, 4)


# --------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_tokens_are_exchangeable(placement):
    """A permutation changes the order of sums only: rounding."""
    model = model_of(placement=placement)
    order = jr.permutation(jr.key(1), N)
    moved = layers.forward(model, X0[order]).x_end
    np.testing.assert_allclose(
        moved, layers.forward(model, X0).x_end[order], rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_causal_layers_do_not_see_later_tokens(placement):
    model = model_of(placement=placement, causal=True)
    whole = layers.forward(model, X0).x_end
    changed = layers.forward(model, X0.at[4:].multiply(-1)).x_end
    np.testing.assert_array_equal(changed[:4], whole[:4])
    assert jnp.abs(changed[4:] - whole[4:]).max() > 0.1
    np.testing.assert_allclose(
        layers.forward(model, X0[:4]).x_end, whole[:4], rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_identity_weights_commute_with_rotations(normalizer):
    """Not LayerNorm, which singles out the mean."""
    model = model_of(weights="identity", heads=1, mlp=None, normalizer=normalizer)
    rotation = WEIGHTS["orthogonal"](jr.key(5), (D, D))
    x = start(model)
    off = layers.forward(model, x @ rotation).x_end - layers.forward(model, x).x_end @ rotation
    assert jnp.abs(off).max() < 1e-12 if normalizer != "layer-norm" else jnp.abs(off).max() > 0.1


# -------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("shared", [False, True])
def test_forward_is_the_blocks_one_after_another(shared):
    model = model_of(depth=4, shared=shared, placement="sqrt")
    through = eqx.filter_jit(lambda block, t, x: block(t, x))
    observe = {"rho": mean_cosine, "E": partial(energy, beta=0.5), "far": count_of_far}
    run = layers.forward(model, X0, observe=observe)
    x, xs = X0, [X0]
    for t in range(4):
        block = model.blocks if shared else jax.tree.map(lambda a, t=t: a[t], model.blocks)
        x = through(block, jnp.asarray(t), x)
        xs.append(x)
    np.testing.assert_allclose(run.xs, jnp.stack(xs), atol=1e-12)
    np.testing.assert_array_equal(run.x_end, run.xs[-1])
    np.testing.assert_array_equal(run.ts, jnp.arange(5.0))
    assert run.t_end == 4 == run.stats["num_steps"]
    for name, function in observe.items():
        np.testing.assert_allclose(run.observed[name], jax.vmap(function)(run.xs), rtol=1e-12)
    assert jnp.issubdtype(run.observed["far"].dtype, jnp.integer)
    lean = layers.forward(model, X0, observe=observe, states=False)
    assert lean.xs is None
    np.testing.assert_allclose(lean.observed["E"], run.observed["E"], rtol=1e-13)
    assert run.to_xarray().tokens.dims == ("time", "token", "axis")


def count_of_far(x):
    return jnp.sum(jnp.abs(x) > 1)


class Clock(eqx.Module):
    timed = True

    def __call__(self, t, x):
        return t * x[0, 0]


def test_timed_observables_read_the_layer():
    run = layers.forward(model_of(), X0, observe={"clock": Clock()})
    np.testing.assert_allclose(run.observed["clock"], run.ts * run.xs[:, 0, 0], atol=1e-14)


def test_fresh_layers_differ_and_shared_ones_repeat():
    fresh, shared = model_of(), model_of(shared=True)
    query = fresh.blocks.attention.function.query
    assert query.shape == (3, D, D)
    assert min(jnp.abs(query[0] - query[1]).max(), jnp.abs(query[1] - query[2]).max()) > 0.1
    stacked = layers.stack([shared.blocks] * 3)
    for same in (stacked, layers.repeat(shared.blocks, 3)):
        got, want = layers.forward(same, X0).xs, layers.forward(shared, X0).xs
        np.testing.assert_allclose(got, want, atol=1e-12)
    one_by_one = layers.stack([layers.block(key, D, heads=HEADS) for key in jr.split(jr.key(0), 3)])
    for got, want in zip(*map(jax.tree.leaves, (one_by_one, fresh)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-15)


def test_a_quarter_of_the_layers_of_mix_is_post_ln():
    model = layers.transformer(jr.key(0), D, 8, placement="mix", normalizer="sphere")
    radii = jnp.linalg.norm(layers.forward(model, UNIT).xs, axis=-1)
    np.testing.assert_allclose(radii[:3], 1, atol=1e-14)
    assert (radii[3:] > 1.05).all(axis=1).all()
    ends = {"post": 8, "pre": 0}
    for placement, tau in ends.items():
        mixed = layers.forward(model_of(depth=8, placement="mix", tau=tau), X0).x_end
        plain = layers.forward(model_of(depth=8, placement=placement), X0).x_end
        np.testing.assert_allclose(mixed, plain, atol=1e-11)


@pytest.mark.parametrize("placement", ["post", "mix"])
def test_seeds_batch_under_vmap(placement):
    @jax.jit
    def run(key):
        model = layers.transformer(key, D, 3, heads=HEADS, placement=placement)
        return layers.forward(model, jr.normal(key, (N, D)), observe={"rho": mean_cosine})

    keys = jr.split(jr.key(0), 3)
    batch = jax.jit(jax.vmap(run))(keys)
    for k, key in enumerate(keys):
        one = run(key)
        np.testing.assert_allclose(batch.xs[k], one.xs, atol=1e-12)
        np.testing.assert_allclose(batch.observed["rho"][k], one.observed["rho"], atol=1e-12)


def test_numbers_of_the_placement_batch_under_vmap():
    model = model_of(placement="ngpt", shared=True)

    def end(eta, alpha):
        numbers = lambda m: (m.blocks.eta, m.blocks.alpha)
        return layers.forward(eqx.tree_at(numbers, model, (eta, alpha)), X0).x_end

    ends = jax.vmap(end)(jnp.array([0.1, 1.0]), jnp.array([0.5, 2.0]))
    want = layers.forward(model_of(placement="ngpt", shared=True, eta=0.1, alpha=0.5), X0).x_end
    np.testing.assert_allclose(ends[0], want, atol=1e-12)
    drawn = jax.vmap(lambda eta: model_of(placement="ngpt", shared=True, eta=eta).blocks.eta)
    np.testing.assert_array_equal(drawn(jnp.array([0.1, 1.0])), [0.1, 1.0])


def _none(leaf):
    return leaf is None


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_gradients_follow_finite_differences(placement):
    """In the weights, eta, alpha and the tokens; central differences err by h^2 + eps/h, relatively."""
    model = model_of(placement=placement, mlp="swiglu", weights="gaussian", eta=0.3)
    tau, model = model.blocks.tau, eqx.tree_at(lambda m: m.blocks.tau, model, None, is_leaf=_none)
    target = jr.normal(jr.key(9), (N, D))
    point, h = (model, X0), 1e-5

    def loss(point):
        model = eqx.tree_at(lambda m: m.blocks.tau, point[0], tau, is_leaf=_none)
        return jnp.mean(layers.forward(model, point[1]).x_end * target)

    leaves, tree = jax.tree.flatten(point)
    keys = jr.split(jr.key(4), len(leaves))
    ray = [jr.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    along = lambda s: loss(tree.unflatten([a + s * v for a, v in zip(leaves, ray, strict=True)]))
    gradient = jax.tree.leaves(eqx.filter_grad(loss)(point))
    assert all(jnp.isfinite(g).all() for g in gradient)
    slope = sum(float(jnp.vdot(g, v)) for g, v in zip(gradient, ray, strict=True))
    assert abs(slope) > 1e-3
    np.testing.assert_allclose((along(h) - along(-h)) / (2 * h), slope, rtol=1e-6)


@pytest.mark.parametrize("placement", ["post", "mix", "ngpt", "ln-scaling"])
def test_tokens_keep_their_dtype(placement):
    """Weights are in double precision; float32 rounding grows over three layers."""
    model = model_of(placement=placement, mlp="swiglu")
    observe = {"rho": mean_cosine, "E": partial(energy, beta=0.5)}
    run = layers.forward(model, X0.astype(jnp.float32), observe=observe)
    floats = [leaf for leaf in jax.tree.leaves(run) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert len(floats) == 6
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    wide = layers.forward(model, X0)
    assert wide.xs.dtype == jnp.float64
    scale = float(jnp.abs(wide.x_end).max())
    np.testing.assert_allclose(run.x_end / scale, wide.x_end / scale, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_programs_do_not_grow_with_depth(shared):
    def lines(depth):
        model = model_of(depth=depth, shared=shared)
        program = jax.jit(lambda x: layers.forward(model, x, observe={"rho": mean_cosine}).xs)
        return program.lower(X0).as_text().count("\n")

    assert lines(3) == lines(48)


def test_new_numbers_compile_nothing():
    traces = []

    def observe(x):
        traces.append(x.shape)
        return x[0, 0]

    run = lambda **options: layers.forward(model_of(**options), X0, observe={"x": observe}).x_end
    first = run()
    count = len(traces)
    for other in (run(seed=1), run(eta=0.5)):
        assert jnp.abs(other - first).max() > 1e-3
    assert len(traces) == count


def test_every_observable_and_every_start_apply():
    observe = {**af.observables.OBSERVABLES}
    run = layers.forward(model_of(causal=True), X0[:5], observe=observe)
    assert all(values.shape == (4,) for values in run.observed.values())
    np.testing.assert_allclose(run.observed["effective_rank"][-1], effective_rank(run.x_end))
    one = layers.forward(model_of(), X0[:1])
    assert jnp.isfinite(one.xs).all()


def test_pytorch_is_not_imported():
    report = "import sys, attnflow.layers; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


# ---------------------------------------------------------------------------------------- bad input

BLOCK = {
    "heads that do not divide": ({"heads": 3}, "`heads` must divide d, but heads=3 and d=8"),
    "no heads": ({"heads": 0}, "`heads` must be a whole number >= 1, but heads=0"),
    "d = 1": ({"d": 1, "heads": 1}, "`d` must be a whole number >= 2, but d=1"),
    "zero hidden": ({"hidden": 0}, "`hidden` must be a whole number >= 1, but hidden=0"),
    "an unknown placement": (
        {"placement": "pots"},
        "`placement` must be one of",
        "Did you mean 'post'?",
    ),
    "an unknown activation": (
        {"mlp": "glu"},
        "`mlp` must be one of gelu, relu, swiglu",
        "mlp='glu'",
    ),
    "an unknown initialiser": ({"weights": "kaimin"}, "`weights`", "Did you mean 'kaiming'?"),
    "an unknown value": ({"value": "zero"}, "`value` must be one of", "orthogonal", "value='zero'"),
    "an unknown normalizer": (
        {"normalizer": "rmsnorm"},
        "`normalizer`",
        "Did you mean 'rms-norm'?",
    ),
    "a long GOE": ({"weights": "goe"}, "square for 'goe'", "shape=(32, 8)", "`mlp_weights`"),
    "NaN eta": ({"eta": np.nan}, "`eta` must be finite, but eta=nan"),
    "two etas": ({"eta": jnp.ones(2)}, "`eta` must be one number, but eta.shape=(2,)"),
    "a negative alpha": ({"alpha": -0.5}, "`alpha` must satisfy alpha >= 0, but alpha=-0.5"),
    "infinite beta": ({"beta": np.inf}, "`beta` must be finite, but beta=inf"),
    "negative eps": ({"eps": -1e-5}, "`eps` must satisfy eps >= 0"),
    "mix without tau": (
        {"placement": "mix"},
        "`tau` must be given for placement 'mix'",
        "tau=None",
    ),
    "a negative tau": ({"placement": "mix", "tau": -1}, "`tau` must satisfy tau >= 0, but tau=-1"),
}


@pytest.mark.parametrize("case", BLOCK)
def test_block_refuses(case, untyped):
    changes, *parts = BLOCK[case]
    call = {"d": D, "heads": HEADS, **changes}
    refused(lambda: layers.block(jr.key(0), **call), *parts)


Q, OUT = jnp.ones((4, D)), jnp.ones((D, 4))
HEADS_OF = partial(layers.Heads, Q, Q, Q, OUT)
IDENTITY = layers.block(jr.key(0), D, weights="identity")
GIVEN = {
    "NaN weights": (lambda: layers.Heads(Q.at[0, 0].set(jnp.nan), Q, Q, OUT), "`query` must be finite"),
    "infinite MLP": (lambda: layers.MLP(Q, OUT / 0), "`down` must be finite"),
    "keys of another width": (lambda: layers.Heads(Q, Q[:2], Q, OUT), "`key` must have shape (4, 8)"),
    "a long output": (lambda: layers.Heads(Q, Q, Q, OUT.T), "`output` must have shape (8, 4)"),
    "a vector": (lambda: layers.Heads(Q[0], Q, Q, OUT), "`query` must be a matrix", "query.shape=(8,)"),
    "no hidden": (lambda: layers.MLP(Q[:0], OUT[:, :0]), "`up` must be a matrix", "up.shape=(0, 8)"),
    "uneven heads": (lambda: HEADS_OF(heads=3), "must divide the rows of `query`", "heads=3"),
    "a long bias": (lambda: HEADS_OF(jnp.ones(8)), "`query_bias` must have shape (4,)"),
    "an unknown activation": (lambda: layers.MLP(Q, OUT, activation="gleu"), "Did you mean 'gelu'?"),
    "SwiGLU without a gate": (
        lambda: layers.MLP(Q, OUT, activation="swiglu"), "`gate` must be a matrix", "'swiglu'",
    ),
    "an idle gate": (lambda: layers.MLP(Q, OUT, Q), "`gate` must be None for activation 'gelu'"),
    "an unknown kind": (lambda: layers.Normalizer("layernorm"), "Did you mean 'layer-norm'?"),
    "an infinite gain": (lambda: layers.Normalizer("sphere", jnp.ones(3) / 0), "`gain` must be finite"),
    "gain and bias that differ": (
        lambda: layers.Normalizer("sphere", jnp.ones(3), jnp.ones(4)), "`bias` must have shape (3,)",
    ),
    "peri without its norm": (
        lambda: layers.Block(IDENTITY.attention, placement="peri"),
        "`attention.output_norm` must be given for placement 'peri'",
    ),
    "idle norms": (
        lambda: layers.Block(layers.Sublayer(HEADS_OF()), IDENTITY.mlp, placement="none"),
        "`mlp.norm` must be None for placement 'none'",
    ),
    "idle tau": (
        lambda: layers.Block(IDENTITY.attention, tau=2), "`tau` must be None for placement 'post'", "tau=",
    ),
    "no layers": (lambda: layers.stack([]), "`len(blocks)` must be a whole number >= 1"),
    "layers that differ": (
        lambda: layers.stack([IDENTITY, layers.block(jr.key(0), D, hidden=3)]), "but they differ",
    ),
    "no depth": (lambda: layers.repeat(IDENTITY, 0), "`depth` must be a whole number >= 1, but depth=0"),
    "no depth drawn": (lambda: model_of(depth=0), "`depth` must be", "depth=0"),
    "one block for three": (
        lambda: layers.Transformer(IDENTITY, 3, shared=False), "leading axis of length depth=3",
    ),
    "tau beyond the depth": (
        lambda: model_of(placement="mix", tau=4), "`tau` must satisfy tau <= 3, but tau=4", "3 layers",
    ),
    "tau beyond the given depth": (
        lambda: layers.repeat(layers.block(jr.key(0), D, placement="mix", tau=4), 3), "tau <= 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GIVEN)
def test_given_parts_are_checked(case, untyped):
    call, *parts = GIVEN[case]
    refused(call, *parts)


FORWARD = {
    "another dimension": ({"x0": X0[:, :5]}, "`x0` must have shape (n, 8)", "x0.shape=(6, 5)"),
    "NaN": ({"x0": X0.at[1, 0].set(jnp.nan)}, "`x0` must be finite", "x0[1]"),
    "one axis": ({"x0": X0[0]}, "shape (n, d)", "x0.shape=(8,)"),
    "whole numbers": ({"x0": jnp.ones((2, D), int)}, "x0.dtype=int64"),
    "tokens off the sphere": (
        {"model": model_of(normalizer="sphere"), "x0": 2 * UNIT}, "unit vectors", "`sphere.normalize(x0)`",
    ),
    "a block": ({"model": IDENTITY}, "`model` must be a `Transformer`", "`layers.repeat(block, depth)`"),
    "one observable": ({"observe": mean_cosine}, "`observe` must be a dict of functions"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORWARD)
def test_forward_refuses(case, untyped):
    changes, *parts = FORWARD[case]
    call = {"model": model_of(), "x0": X0, **changes}
    model, x0 = call.pop("model"), call.pop("x0")
    refused(lambda: layers.forward(model, x0, **call), *parts)


def refused(call, *parts):
    """The call raises a `ValueError` of one line in our voice that holds every part."""
    with pytest.raises(ValueError, match="must") as caught:
        call()
    message = str(caught.value)
    assert message.startswith("Argument `")
    assert message.endswith((".", "?"))
    assert "\n" not in message
    for part in parts:
        assert part in message
