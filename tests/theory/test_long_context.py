import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import attnflow as af
from attnflow.claims.long_context import kernel_gap
from attnflow.theory import long_context as lc
from attnflow.theory.long_context import escape

SIZES = 2 ** np.arange(8, 21, 2)
TABLE = {
    0.5: {
        1.0: ".996957 .999138 .999771 .999941 .999985 .999996 .999999",
        1.5: ".962596 .978154 .987850 .993457 .996553 .998212 .999083",
        1.8: ".883786 .900312 .915851 .929806 .942042 .952586 .961539",
        2.0: ".801093 .800273 .800068 .800017 .800004 .800001 .800000",
        2.2: ".713339 .692493 .673246 .655354 .638805 .623610 .609756",
        2.5: ".610184 .580757 .558635 .542251 .530276 .521609 .515381",
        3.0: ".530393 .515396 .507753 .503891 .501949 .500976 .500488",
    },
    0.2: {
        0.75: ".965705 .986793 .995287 .998380 .999454 .999818 .999939",
        1.0: ".807596 .863255 .908124 .940736 .962915 .977312 .986349",
        1.25: ".503896 .500976 .500244 .500061 .500015 .500004 .500001",
        1.5: ".308166 .281203 .261346 .246402 .235108 .226566 .220107",
        2.0: ".211704 .205027 .202180 .200948 .200412 .200179 .200078",
    },
}
ROWS = [(rho, gamma) for rho, rows in TABLE.items() for gamma in rows]


def cosine(rho, gamma, n, eta=None):
    return lc.output_cosine(rho, n=n, beta=lc.logit_scale(gamma, n), eta=eta)


def raw_gap(rho, n, beta, eta):
    """1 - C_n as printed, in 400 digits of the very floats."""
    with mp.workdps(400):
        rho, beta = mp.mpf(float(rho)), mp.mpf(float(beta))
        e = mp.exp(beta * (1 - rho))
        delta, rise = (e - 1) / (e + n - 1), 1 + (n - 1) * rho
        p, q = (delta, (1 - delta) / n) if eta is None else (1 + eta * delta, eta * (1 - delta) / n)
        square = p**2 + 2 * p * q * rise + q**2 * n * rise
        return 1 - (p**2 * rho + 2 * p * q * rise + q**2 * n * rise) / square


def angular_gap(y):
    """1 - cosine of two vectors of equal length."""
    return ((y[0] - y[1]) ** 2).sum() / 2 / (y[0] @ y[0])


def layer_cosines(x, beta, eta=None, rows=None):
    """Cosines of the outputs of a layer, of the first rows with all others."""
    y = np.asarray(jax.jit(lambda x: af.Attention(beta)(x))(x))
    y = y if eta is None else np.asarray(x) + eta * y
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    return (y[:rows] @ y.T)[~np.eye(len(y), dtype=bool)[:rows]]


@pytest.mark.parametrize(("rho", "gamma"), ROWS)
def test_table(printed, rho, gamma):
    printed(cosine(rho, gamma, SIZES), TABLE[rho][gamma])


def test_layer_numbers(printed):
    rho, gamma, n = np.array([0.3, 0.5, 0.2]), np.array([1.1, 2.0, 1.6]), np.array([50, 200, 100])
    printed(cosine(rho, gamma, n), ".851831153488 .801399197593 .292510006657")
    printed(cosine(rho, gamma, n, eta=0.7), ".470203164697 .614009242458 .232751997231")
    printed(cosine(0.5, 1.0, 2**20, eta=1.0), ".799688")
    assert lc.limit_cosine(0.5, 1.0, eta=1.0) == 0.8


def test_correction_numbers(printed):
    """n times the correction at the critical scale; next order 1/n."""
    rho, n = np.array([0.2, 0.5, 0.8]), 2**20
    gamma = lc.critical_gamma(rho)
    printed(n * lc.limit_correction(rho, gamma, n), "1.0000 .2800 .06574")
    exact = [1 - raw_gap(r, n, lc.logit_scale(g, n), None) for r, g in zip(rho, gamma, strict=True)]
    limit = lc.limit_cosine(rho, gamma)
    # one ulp of gamma shifts C by 1e-14, and n times that is 1e-8
    printed([float(n * (c - x)) for c, x in zip(exact, limit, strict=True)], "1.0000 .2800 .06574")


def test_escape_numbers(printed):
    n = np.array([2**10, 2**16, 2**20])
    np.testing.assert_array_equal(escape.layers_to_escape(0.5, 3.0, n=n), [6, 20, 54])
    np.testing.assert_array_equal(escape.layers_to_escape(0.5, 2.5, n=n[1:]), [4, 5])
    printed(escape.escape_estimate(0.5, 3.0, n=n), "3.1 15.4 49.2")


@pytest.mark.parametrize(
    ("gamma", "top", "median"),
    [(1, ".400 .270 .171", ".279 .140 .068"), (2, "1.334 1.584 1.852", ".708 .658 .641"),
     (3, "1.3145 1.253 1.176", ".94446 .962 .979")],
)  # fmt: skip
def test_jacobian_numbers(printed, gamma, top, median):
    n = np.array([32, 128, 512])
    values = lc.self_jacobian(0.5, n=n, beta=lc.logit_scale(gamma, n))
    printed(values.plane, top)
    printed(values.inside, median)


@pytest.mark.parametrize("n", [2, 3, 50, 2**20, 10**12])
@pytest.mark.parametrize("eta", [None, 0.7, 30.0])
def test_gap_in_many_digits(n, eta):
    """Rounding of beta (1 - rho) in the exponent costs its size in ulps, twice; sums cost a few more."""
    for rho in (-0.3 / (n - 1), 0.0, 0.2, 0.7, 1 - 2**-40):
        for beta in (-40.0, -1.0, 1e-140, 1e-9, 0.3, 5.0, 25.0, 300.0):
            got = lc.output_gap(rho, n=n, beta=beta, eta=eta)
            want = raw_gap(rho, n, beta, eta)
            if want < 1e-300:
                continue
            tolerance = 2e-15 * (4 + abs(beta) * (1 - rho))
            assert abs(got / want - 1) < tolerance, (rho, beta)


def test_gap_down_to_the_last_float():
    gap = lc.output_gap(0.5, n=2**20, beta=1e-140)
    np.testing.assert_allclose(gap, 2.5e-281 / 2**40, rtol=1e-5)  # m differs from rho by 1/n
    assert gap < 1e-292


def test_no_beta_overflows():
    np.testing.assert_array_equal(cosine(0.5, 1e300, 2**20), 0.5)
    assert lc.output_cosine(0.5, n=2, beta=-1e308) == 0.5  # the two tokens trade places
    assert lc.output_cosine(0.5, n=2**20, beta=1e308, eta=1.0) == 0.5
    norms = lc.output_norm(0.5, n=2**20, beta=[1e308, 0.0])
    np.testing.assert_allclose(norms, [1, np.sqrt(0.5)], rtol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 50, 1797])
def test_the_simplex_stays(n):
    simplex = -1 / (n - 1)
    for eta in (None, 0.5):
        got = lc.output_cosine(simplex, n=n, beta=[1e-9, 3.0], eta=eta)
        np.testing.assert_allclose(got, simplex, rtol=0, atol=3e-16)
    assert np.isnan(lc.output_cosine(simplex, n=n, beta=0.0))
    assert np.isnan(lc.self_jacobian(simplex, n=n, beta=0.0).plane)
    assert lc.output_norm(simplex, n=n, beta=0.0) == 0
    np.testing.assert_array_equal(lc.output_cosine(1.0, n=n, beta=[0.0, 3.0]), 1)


@pytest.mark.parametrize(
    ("n", "rho", "gamma"), [(50, 0.3, 1.1), (200, 0.5, 2.0), (100, 0.2, 1.6), (7, -0.1, 0.7)]
)
@pytest.mark.parametrize("eta", [None, 0.7])
def test_every_pair_of_a_layer(n, rho, gamma, eta):
    beta = float(lc.logit_scale(gamma, n))
    cosines = layer_cosines(af.sphere.equiangular(n, rho), beta, eta)
    np.testing.assert_allclose(cosines, cosine(rho, gamma, n, eta), rtol=0, atol=1e-13)


def test_every_pair_of_a_long_layer():
    n, rho, gamma = 4096, 0.5, 1.8
    x, beta = af.sphere.equiangular(n, rho), float(lc.logit_scale(gamma, n))
    cosines = layer_cosines(x, beta, rows=64)
    assert np.abs(cosines - cosine(rho, gamma, n)).max() < 1e-12


def test_two_tokens_of_twenty_thousand():
    """All 20 000 keys in as many dimensions, a block at a time, merged by their log-partitions."""
    n, rho, gamma, block = 20_000, 0.5, 2.2, 2000
    beta, apart = float(lc.logit_scale(gamma, n)), np.sqrt(1 - rho)
    shift = (np.sqrt(1 + (n - 1) * rho) - apart) / n

    def tokens(start, count):
        return shift + apart * (start + jnp.arange(count)[:, None] == jnp.arange(n)[None])

    @jax.jit
    def seen(q, start):
        k = tokens(start, block)
        return af.kernels.dense(q, k, k, beta)

    q = tokens(0, 2)
    total, mean = np.full(2, -np.inf), np.zeros((2, n))
    for start in range(0, n, block):
        part, log_z = (np.asarray(a) for a in seen(q, start))
        merged = np.logaddexp(total, log_z)
        mean = mean * np.exp(total - merged)[:, None] + part * np.exp(log_z - merged)[:, None]
        total = merged
    norm = lc.output_norm(rho, n=n, beta=beta)
    np.testing.assert_allclose(np.linalg.norm(mean, axis=1), norm, rtol=1e-12)
    for eta, y in ((None, mean), (0.7, np.asarray(q) + 0.7 * mean)):
        gap = lc.output_gap(rho, n=n, beta=beta, eta=eta)
        np.testing.assert_allclose(angular_gap(y), gap, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [50, 2**20, 10**9])
@pytest.mark.parametrize("eta", [None, 1.0])
def test_kernel_sum_over_any_number(n, eta):
    """Rounding in units of 1e-16, over a gap that may be small."""
    for gamma in (0.5, 1.5, 2.0, 2.5):
        beta = float(lc.logit_scale(gamma, n))
        got = kernel_gap(n, 0.5, beta, eta)
        np.testing.assert_allclose(got, 1 - cosine(0.5, gamma, n, eta), rtol=0, atol=1e-13)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.4, 0.8, 1.0, 1.2, 2.0])
def test_corrections_are_the_next_order(rho, share):
    """n = 1e40: what is left is smaller by n^-|g-1|, or by 1/n."""
    with mp.workdps(120):
        n = mp.mpf(10) ** 40
        gamma = share * lc.critical_gamma(rho)
        lead = mp.log(n) if share == 1 else mp.mpf(float(gamma)) * (1 - mp.mpf(rho)) * mp.log(n)
        delta = (mp.exp(lead) - 1) / (mp.exp(lead) + n - 1)
        m = rho + (1 - mp.mpf(rho)) / n
        exact = 1 - delta**2 * (1 - mp.mpf(rho)) / (delta**2 + (1 - delta**2) * m)
        r = mp.mpf(rho)
        limit = {True: mp.mpf(1), False: r}[share < 1] if share != 1 else 4 * r / (1 + 3 * r)
        left = float(exact - limit)
    np.testing.assert_allclose(lc.limit_cosine(rho, gamma), float(limit), rtol=1e-15)
    got = lc.limit_correction(rho, gamma, 1e40)
    # the factor 20 covers 1/rho and 1/(1 - rho); rounding of gamma costs log n = 92 ulps
    tolerance = 20 * 1e40 ** -(abs(share - 1) or 1) + 4e-14
    np.testing.assert_allclose(got, left, rtol=tolerance)


@pytest.mark.parametrize("eta", [None, 0.4, 1.0, 5.0])
def test_limits_at_huge_n(eta):
    """n = 1e300: n^-0.1 is 1e-30."""
    rho = np.array([0.1, 0.5, 0.9])
    for share in (0.0, 0.9, 1.1, 3.0):
        gamma = share * lc.critical_gamma(rho)
        got = lc.limit_cosine(rho, gamma, eta=eta)
        np.testing.assert_allclose(got, cosine(rho, gamma, 1e300, eta), rtol=0, atol=1e-14)
    gamma = lc.critical_gamma(rho)
    # rounding of gamma times log n = 690 shifts the window by 1.5e-13
    got = lc.limit_cosine(rho, gamma, eta=eta)
    np.testing.assert_allclose(got, cosine(rho, gamma, 1e300, eta), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(got, lc.critical_window(0.0, rho, eta=eta))


def test_orthogonal_tokens_turn_at_one_half():
    """At rho = 0 the mean is 1/n, and collapse needs delta^2 n -> 0: n^(2 gamma - 1)."""
    got = cosine(0.0, np.array([0.4, 0.5, 0.6]), 1e300)
    np.testing.assert_allclose(got, [1, 0.5, 0], atol=1e-13)


@pytest.mark.parametrize("eta", [None, 1.0])
def test_window_collects_all_n(eta):
    tau, n = np.linspace(-6, 6, 7), 10.0 ** np.array([6, 9, 12])[:, None]
    gamma = (1 + tau / np.log(n)) / 0.5
    error = np.abs(cosine(0.5, gamma, n, eta) - lc.critical_window(tau, 0.5, eta=eta))
    assert (error < 1 / n + 1e-13).all()
    assert (error[0] > 1e-10).any()
    ends = lc.critical_window([-np.inf, 0, np.inf], 0.5, eta=eta)
    np.testing.assert_allclose(ends, lc.limit_cosine(0.5, [1.0, 2.0, 3.0], eta=eta), rtol=1e-15)


@pytest.mark.parametrize("n", [2, 50, 2**20])
def test_scale_for_cosine_inverts(n):
    for rho in (-0.5 / (n - 1), 0.0, 0.3, 0.9):
        wanted = rho + (1 - rho) * np.array([1e-6, 0.1, 0.5, 0.999, 1.0])
        beta = lc.scale_for_cosine(wanted, rho, n=n)
        got = lc.output_cosine(rho, n=n, beta=beta)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-15)
        gamma = lc.gamma_for_cosine(wanted, rho, n=n)
        np.testing.assert_allclose(lc.logit_scale(gamma, n), beta, rtol=1e-15)
    assert lc.gamma_for_cosine(1.0, 0.5, n=n) == 0


@pytest.mark.parametrize("beta", [-2.0, 0.0, 3.0, 30.0])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (3, 3), (8, 11)])
@pytest.mark.parametrize("rho", [-0.1, 0.0, 0.6])
def test_jacobian_is_what_jax_differentiates(n, d, rho, beta):
    x = af.sphere.equiangular(n, rho, d=d)

    def direction(token):
        return af.sphere.normalize(af.Attention(beta)(x.at[0].set(token))[0])

    tangents = np.asarray(jnp.eye(d) - jnp.outer(x[0], x[0]))
    values = np.linalg.svd(np.asarray(jax.jacfwd(direction)(x[0])) @ tangents, compute_uv=False)
    got = lc.self_jacobian(rho, n=n, beta=beta)
    expected = [float(got.outside)] * (d - n) + [float(got.inside)] * (n - 2) + [float(got.plane)]
    np.testing.assert_allclose(values[:-1], sorted(expected, reverse=True), atol=2e-14)
    np.testing.assert_allclose(values[-1], 0, atol=2e-14)


def test_jacobian_vanishes_below_and_stays_above():
    below = lc.self_jacobian(0.5, n=1e300, beta=lc.logit_scale(1.5, 1e300))
    np.testing.assert_allclose(below, 0, atol=1e-70)
    above = lc.self_jacobian(0.5, n=1e300, beta=lc.logit_scale(3.0, 1e300))
    np.testing.assert_allclose(above, 1, atol=1e-12)
    n = np.array([1e100, 1e200, 1e300])
    at = lc.self_jacobian(0.5, n=n, beta=lc.logit_scale(2.0, n)).plane
    np.testing.assert_allclose(np.diff(at) / np.diff(np.log(n)), np.diff(at)[0] / np.log(1e100), rtol=1e-9)  # fmt: skip


def test_layers_are_iterated():
    """Against real layers, normalised each time, with and without residual."""
    n, rho0, gamma = 64, 0.5, 2.5
    beta = float(lc.logit_scale(gamma, n))
    for eta in (None, 0.5):
        x, seen = af.sphere.equiangular(n, rho0), [rho0]
        for _ in range(5):
            y = af.Attention(beta)(x)
            x = af.sphere.normalize(y if eta is None else x + eta * y)
            seen.append(float(af.observables.mean_cosine(x)))
        got = escape.cosines(rho0, layers=5, n=n, gamma=gamma, eta=eta)
        np.testing.assert_allclose(got, seen, rtol=0, atol=1e-12)


def test_gaps_go_on_below_rounding():
    """At gap g a layer makes (beta g / n)^2 g of it, to a relative beta g."""
    gaps = escape.gaps(0.5, layers=5, n=2**20, gamma=1.0)
    small = gaps[2:4]
    np.testing.assert_allclose(small[1:], (np.log(2**20) * small[:1] / 2**20) ** 2 * small[:1], rtol=1e-4)  # fmt: skip
    assert 0 < small[1] < 1e-80
    np.testing.assert_array_equal(escape.cosines(0.5, layers=3, n=2**20, gamma=1.0), 1 - gaps[:4])


def test_escape_broadcasts_and_gives_up():
    n = np.array([[2**10], [2**20]])
    got = escape.layers_to_escape([0.5, 0.999], 3.0, n=n, max_layers=20)
    np.testing.assert_array_equal(got, [[6, 0], [np.inf, 0]])
    assert escape.gaps([0.1, 0.2], layers=2, n=n, gamma=1.0).shape == (3, 2, 2)
    assert escape.escape_estimate(0.5, 1e9, n=4) == np.inf


@pytest.mark.parametrize("log_n", [14, 22, 40, 60])
@pytest.mark.parametrize("rho", [0.2, 0.5, 0.8])
def test_estimate_is_the_leading_order(rho, log_n):
    """Laplace's series of the summed drift: L h''/h / beta^2 at most is left, and 4 layers of the end.

    h = 1/(rho (1 - rho)); log(L)/2 is the sum over its integral.
    """
    n = 2.0**log_n
    gamma = (1 + 8 / log_n) / (1 - rho)  # n^(g - 1) = 2^8
    beta = float(lc.logit_scale(gamma, n))
    count = float(escape.layers_to_escape(rho, gamma, n=n, rho_max=0.999))
    estimate = float(escape.escape_estimate(rho, gamma, n=n))
    first = -(1 - 2 * rho) / (rho * (1 - rho)) / beta
    second = (2 / rho**3 + 2 / (1 - rho) ** 3) * rho * (1 - rho) / beta**2
    left = count - estimate * (1 + first) - np.log(estimate) / 2
    assert -second * estimate < left < second * estimate + 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lc.output_gap(0.5, n=1, beta=1.0), "`n` must be a whole number >= 2, but n=1"),
        (lambda: lc.output_gap(0.5, n=2.5, beta=1.0), "`n` must be a whole number >= 2, but n=2.5"),
        (lambda: lc.output_gap(-0.3, n=5, beta=1.0), "No n vectors have common cosine below -1/"),
        (lambda: lc.output_cosine([0.5, 1.1], n=5, beta=1.0), r"`rho` must lie in \[-1/\(n-1\), 1\], but rho=1.1"),
        (lambda: lc.output_cosine(np.nan, n=5, beta=1.0), "`rho` must be finite"),
        (lambda: lc.output_norm(0.5, n=5, beta=np.inf), "`beta` must be finite"),
        (lambda: lc.output_gap(0.5, n=5, beta=1.0, eta=-1.0), "`eta` must be finite and >= 0"),
        (lambda: lc.logit_scale(-1.0, 5), "`gamma` must be finite and >= 0, but gamma=-1.0"),
        (lambda: lc.logit_scale(1.0, 1), "`n` must be a whole number >= 2, but n=1"),
        (lambda: lc.critical_gamma(1.0), "`rho` must lie below `square`, but rho=1.0. Equal tokens"),
        (lambda: lc.critical_gamma(0.5, square=0.0), "`square` must be finite and > 0"),
        (lambda: lc.limit_cosine(0.0, 1.0), "turn at gamma = 1/2"),
        (lambda: lc.limit_cosine(0.5, -1.0), "`gamma` must be finite and >= 0"),
        (lambda: lc.limit_correction(1.0, 1.0, 5), "`rho` must lie strictly between 0 and 1"),
        (lambda: lc.critical_window(np.nan, 0.5), "`tau` must not be NaN"),
        (lambda: lc.scale_for_cosine(0.5, 0.5, n=5), r"`cosine` must lie in \(0.5, 1\], above .* cosine=0.5"),
        (lambda: lc.scale_for_cosine(0.4, 0.5, n=5), "reaches no other cosine"),
        (lambda: lc.gamma_for_cosine(1.1, 0.5, n=5), r"`cosine` must lie in \(0.5, 1\]"),
        (lambda: lc.scale_for_cosine(0.5, 1.0, n=5), "Both ends are fixed points"),
        (lambda: lc.self_jacobian(0.5, n=1, beta=1.0), "`n` must be a whole number >= 2"),
        (lambda: escape.gaps(0.5, layers=0, n=5, gamma=1.0), "`layers` must be a whole number >= 1"),
        (lambda: escape.cosines(-0.5, layers=1, n=5, gamma=1.0), "`rho0` must lie in"),
        (lambda: escape.layers_to_escape(0.5, -1.0, n=5), "`gamma` must be finite and >= 0"),
        (lambda: escape.layers_to_escape(0.5, 1.0, n=5, rho_max=1.0), "`rho_max` must lie below 1"),
        (lambda: escape.layers_to_escape(0.5, 1.0, n=5, max_layers=0), "`max_layers` must be"),
        (lambda: escape.escape_estimate(1.0, 1.0, n=5), "`rho0` must lie strictly"),
        (lambda: escape.escape_estimate(0.5, 0.0, n=5), "`gamma` must be > 0"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
