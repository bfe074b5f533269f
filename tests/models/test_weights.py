"""Weights of heads and logits of heads against whole matrices, and on known ones."""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import attnflow as af
from attnflow import sphere
from attnflow.models.projections import LayerHeads
from attnflow.models.weights import as_attention, effective_beta, weight_table


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _head(rng, *, heads=2, groups=None, width=3, d=7, **options):
    groups = groups or heads
    draw = lambda *shape: rng.standard_normal(shape)
    return LayerHeads(
        "drawn", draw(heads, width, d), draw(groups, width, d), draw(groups, width, d),
        draw(heads, d, width), 0.4, **options,
    )  # fmt: skip


def _of_matrices(scores, values):
    """One head, of scale 1, with given d x d matrices."""
    one = np.eye(len(scores))[None]
    return LayerHeads("given", one, scores[None], one, np.asarray(values)[None], 1.0)


# -------------------------------------------------------------------------------------------- weights


def test_table_equals_whole_matrices(rng):
    layer = _head(rng, heads=4, groups=2)
    table = weight_table([layer, layer]).isel(layer=1)
    for h in range(4):
        b = layer.scale * layer.query[h].T @ layer.key[h // 2]
        ov = layer.output[h] @ layer.value[h // 2]
        for matrix, row in ((b, table.sel(matrix="scores")), (ov, table.sel(matrix="values"))):
            even, values = (matrix + matrix.T) / 2, np.linalg.eigvals(matrix)
            values = values[np.argsort(-abs(values))][:3]
            re, im = values.real, abs(values.imag)
            moduli = abs(values)
            kinds = {"attracting": re >= im, "repelling": -re >= im, "rotating": im > abs(re)}
            exact = {
                "norm": np.linalg.norm(matrix), "trace": np.trace(matrix),
                "symmetric": (even**2).sum() / (matrix**2).sum(),
                "antisymmetric": ((matrix - even) ** 2).sum() / (matrix**2).sum(),
                "positive_trace": re[re > 0].sum() / abs(re).sum(),
            } | {
                name: kind.sum() for name, kind in kinds.items()
            } | {
                f"{name}_share": moduli[kind].sum() / moduli.sum() for name, kind in kinds.items()
            }  # fmt: skip
            for name, value in exact.items():
                # Eigenvalues of 7 x 7 and of 3 x 3 matrices, well conditioned.
                np.testing.assert_allclose(row[name][h], value, rtol=1e-10, err_msg=name)
            np.testing.assert_allclose(abs(row.leading[h]), moduli[0], rtol=1e-10)
        cosine = (ov * b).sum() / np.linalg.norm(ov) / np.linalg.norm(b)
        np.testing.assert_allclose(table.alignment[h], cosine, rtol=1e-10)


def test_gauge_changes_nothing(rng):
    layer = _head(rng)
    g, f = rng.standard_normal((2, 2, 3, 3)) + 2 * np.eye(3)
    turned = replace(
        layer, query=g @ layer.query, key=np.linalg.inv(g).swapaxes(1, 2) @ layer.key,
        value=f @ layer.value, output=layer.output @ np.linalg.inv(f),
    )  # fmt: skip
    found, exact = weight_table([turned]), weight_table([layer])
    for name in exact.data_vars:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-8, err_msg=name)


def test_known_matrices():
    turn = np.kron(np.eye(2), [[0.0, -1], [1, 0]])
    one = np.eye(4)
    cases = {
        "positive": (2 * one, 3 * one), "negative": (2 * one, -3 * one), "rotation": (turn, turn),
        "mixed": (np.diag([4.0, 1, 1, -2]), np.diag([4.0, 1, 1, -2])),
    }  # fmt: skip
    tables = {
        name: weight_table([_of_matrices(*pair)]).isel(layer=0, head=0)
        for name, pair in cases.items()
    }
    values = {name: table.sel(matrix="values") for name, table in tables.items()}
    scores = {name: table.sel(matrix="scores") for name, table in tables.items()}
    assert [float(t.alignment) for t in tables.values()] == [1, -1, 1, 1]
    assert [float(t.symmetric) for t in scores.values()] == [1, 1, 0, 1]
    assert [float(t.attracting) for t in values.values()] == [4, 0, 0, 3]
    assert [float(t.repelling) for t in values.values()] == [0, 4, 0, 1]
    assert [float(t.rotating) for t in values.values()] == [0, 0, 4, 0]
    assert float(values["mixed"].attracting_share) == 0.75
    assert float(values["mixed"].positive_trace) == 0.75
    assert np.isnan(values["rotation"].positive_trace)
    assert complex(values["rotation"].leading) == 1j
    assert complex(values["negative"].leading) == -3
    # Only the last has a leading eigenvalue that is simple, real and positive.
    assert [float(t.good_triple) for t in tables.values()] == [0, 0, 0, 1]
    repelled = weight_table([_of_matrices(-one, cases["mixed"][1])])
    assert float(repelled.good_triple[0, 0]) == 0


def test_aligned_symmetric_head_climbs_its_energy(rng, key):
    """THEORY: symmetric = alignment = 1 is the hypothesis of monotone energy; alignment -1 turns it."""
    root = rng.standard_normal((4, 4))
    b = (root + root.T) / 2
    x0 = sphere.uniform(key, 6, 4)
    for sign in (1, -1):
        layer = _of_matrices(b, sign * 0.7 * b)
        row = weight_table([layer]).isel(layer=0, head=0)
        np.testing.assert_allclose(row.symmetric.sel(matrix="scores"), 1, rtol=1e-12)
        np.testing.assert_allclose(row.alignment, sign, rtol=1e-12)
        xs = af.solve(af.Flow(as_attention(layer)), x0, jnp.linspace(0, 2, 11)).xs
        energy = np.exp(np.einsum("tia,ab,tjb->tij", xs, b, xs)).sum(axis=(1, 2))
        assert np.all(sign * np.diff(energy) > 0)


def test_gaussian_factors(rng):
    count, d = 200, 64
    draw = lambda *shape: rng.standard_normal(shape) / 8
    layer = LayerHeads("drawn", *(draw(count, 8, d) for _ in range(3)), draw(count, d, 8), 0.5)
    row = weight_table([layer]).sel(matrix="scores")
    # tr(B^2)/|B|^2 has mean 1/d and standard deviation at most sqrt(2)/d; half of that, over 200 heads.
    stderr = math.sqrt(2) / d / 2 / math.sqrt(count)
    assert abs(float(row.symmetric.mean()) - 0.5 - 0.5 / d) < 4 * stderr
    # Logits of tokens of length sqrt(d): standard deviation is the norm, own mean the trace.
    x = rng.standard_normal((4000, d))
    x *= math.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True)
    logits = 0.5 * x @ layer.query[0].T @ (x @ layer.key[0].T).T
    norm = float(row.norm[0, 0])
    # Pairs share tokens: relative error about 1/sqrt(2 n); own logits have deviation at most sqrt(2) norm.
    off = logits[~np.eye(4000, dtype=bool)]
    np.testing.assert_allclose(off.std(), norm, rtol=4 / math.sqrt(8000))
    error = 4 * math.sqrt(2) * norm / math.sqrt(4000)
    np.testing.assert_allclose(np.diag(logits).mean(), row.trace[0, 0], atol=error)


def test_fewer_heads_and_zero_heads(rng):
    wide, narrow = _head(rng, heads=3), _head(rng, heads=1)
    table = weight_table([wide, replace(narrow, key=0 * narrow.key)])
    assert np.isnan(table.norm[1, 1:]).all()
    last = table.isel(layer=1, head=0)
    assert float(last.norm.sel(matrix="scores")) == 0
    assert np.isnan(last.symmetric.sel(matrix="scores"))
    assert float(last.symmetric.sel(matrix="values")) > 0


# --------------------------------------------------------------------------------------------- logits


def test_effective_beta_equals_the_matrix_of_scores(rng):
    q, k = rng.standard_normal((4, 30, 5)) + 0.5, rng.standard_normal((2, 30, 5)) - 0.3
    found = effective_beta(torch.tensor(q), torch.tensor(k), 0.7)
    for h in range(4):
        s = 0.7 * q[h] @ k[h // 2].T
        norms = np.outer(np.linalg.norm(q[h], axis=1), np.linalg.norm(k[h // 2], axis=1))
        cosines = s / 0.7 / norms
        others = (s.sum(axis=1) - np.diag(s)) / 29
        exact = {
            "beta": 0.7 * norms.mean(), "mean_cosine": cosines.mean(),
            "alignment": np.sqrt(cosines.var(axis=1).mean()),
            "std_logit": np.sqrt(s.var(axis=1).mean()), "gap": (np.diag(s) - others).mean(),
            "gamma": 0.7 * norms.mean() / np.log(30),
        }  # fmt: skip
        for name, value in exact.items():
            np.testing.assert_allclose(getattr(found, name)[h], value, rtol=1e-11, err_msg=name)


@pytest.mark.parametrize("beta", [0.5, 9.0])
def test_effective_beta_of_equiangular_tokens(beta):
    x = np.asarray(sphere.equiangular(12, 0.3))[None]
    found = effective_beta(x, x, beta)
    np.testing.assert_allclose(found.beta, beta, rtol=1e-12)
    np.testing.assert_allclose(found.rho, 0.3, rtol=1e-12)
    np.testing.assert_allclose(found.gamma * (1 - found.rho), found.gap / np.log(12), rtol=1e-12)


def test_norm_growth_and_alignment_part(rng):
    q, k = rng.standard_normal((2, 1, 40, 6))
    q, k = (y / np.linalg.norm(y, axis=2, keepdims=True) for y in (q, k))
    plain, grown = effective_beta(q, k, 0.5), effective_beta(3 * q, 4 * k, 0.5)
    np.testing.assert_allclose(plain.std_logit, plain.beta * plain.alignment, rtol=1e-12)
    np.testing.assert_allclose(grown.beta, 12 * plain.beta, rtol=1e-12)
    np.testing.assert_allclose(grown.alignment, plain.alignment, rtol=1e-12)
    shifted = effective_beta(q, k + 100 * np.ones(6), 0.5)  # a constant of each row
    np.testing.assert_allclose(shifted.std_logit, plain.std_logit, rtol=1e-10)
    assert np.isnan(effective_beta(q, k[:, :20], 0.5).gap).all()


# ------------------------------------------------------------------------------------------ bad input


def test_bad_list(untyped):
    for layers in ([1], []):
        with pytest.raises(ValueError, match="must be a model or a list of `LayerHeads`"):
            weight_table(layers)


def test_bad_queries_and_keys(rng, untyped):
    q = rng.standard_normal((4, 5, 3))
    for k in (q[:3], q[:, :1], q[:, :, :2], q[0]):
        with pytest.raises(ValueError, match="Arguments `q` and `k` must have shapes"):
            effective_beta(q, k, 1.0)
    with pytest.raises(ValueError, match="`scale` must satisfy scale > 0"):
        effective_beta(q, q, 0.0)
    with pytest.raises(ValueError, match="`q` must be finite"):
        effective_beta(q * np.nan, q, 1.0)
