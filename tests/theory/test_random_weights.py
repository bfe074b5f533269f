import mpmath
import numpy as np
import pytest
from scipy.special import ndtr

from attnflow.theory import normalization, random_weights

SCHEMES = [scheme for scheme in normalization.SCHEMES if scheme != "none"]


def test_score_variance_of_real_layers():
    """beta = sqrt(H/d), |x| = sqrt(d): gain^2 at every size."""
    for d, heads in ((768, 12), (8192, 64), (64, 1)):
        got = random_weights.score_variance((heads / d) ** 0.5, d=d, heads=heads, length=d**0.5)
        assert got == pytest.approx(1.0, rel=1e-14)
    assert random_weights.score_variance(512**0.5, d=512, gain=2.0) == pytest.approx(4.0)


@pytest.mark.parametrize("n", [1, 2, 7, 256, 10**6])
def test_without_variance_all_tokens_are_seen(n):
    assert random_weights.seen_tokens(0.0, n=n) == pytest.approx(n, rel=1e-9)
    assert random_weights.participation(0.0, n=n) == pytest.approx(1 / n, rel=1e-9, abs=0)


@pytest.mark.parametrize("variance", [0.3, 4.0, 100.0])
def test_two_scores_by_quadrature(variance):
    """p = 1/(1+e^s), s the difference."""
    spread = mpmath.sqrt(2 * variance)

    def mean(power):
        def term(z):
            p = 1 / (1 + mpmath.exp(spread * z))
            return mpmath.npdf(z) * (p**2 + (1 - p) ** 2) ** power

        return float(mpmath.quad(term, mpmath.linspace(-12, 12, 97)))

    assert random_weights.participation(variance, n=2) == pytest.approx(mean(1), rel=1e-9)
    assert random_weights.seen_tokens(variance, n=2) == pytest.approx(mean(-1), rel=1e-9)


def test_scores_at_their_ends():
    """e^w/n where one sees many tokens; near 1, and monotone, where one takes all."""
    n = 10**7
    assert random_weights.participation(0.5, n=n) * n == pytest.approx(np.exp(0.5), rel=1e-5)
    assert random_weights.seen_tokens(0.5, n=n) / n == pytest.approx(np.exp(-0.5), rel=1e-5)
    variances = (1, 4, 16, 64, 256, 400)
    shares = np.array([random_weights.participation(w, n=256) for w in variances])
    counts = np.array([random_weights.seen_tokens(w, n=256) for w in variances])
    assert np.all(np.diff(shares) > 0)
    assert np.all(np.diff(counts) < 0)
    assert np.all(shares * counts > 1)
    assert 1 < counts[-1] < 1.3


def test_attention_overlaps_at_their_ends():
    n, variance = 64, 3.0
    apart = random_weights.attention_overlaps(0.0, n=n, variance=variance)
    assert apart.square == pytest.approx(random_weights.participation(variance, n=n))
    assert apart.square - apart.contrast == pytest.approx(1 / n, rel=1e-10)
    merged = random_weights.attention_overlaps(1.0, n=n, variance=variance)
    assert (merged.square, merged.contrast) == (1.0, 0.0)
    near = random_weights.attention_overlaps(1 - 1e-9, n=n, variance=variance)
    # (1-rho) Y (1 - (nY)^-(1-rho)), nY = e^w, w = 3e-9
    assert near.contrast == pytest.approx(1e-9 / n * 3e-9 * 1e-9, rel=0.02, abs=0)
    uniform = random_weights.attention_overlaps([0.0, 0.5], n=n, variance=0.0)
    np.testing.assert_allclose(uniform.contrast, 0, atol=1e-12)


def test_means_of_cosines_see_shorter_tokens():
    """Against a mean over 10^6 log-normal lengths: 4 standard errors."""
    seen = random_weights.Overlaps(np.asarray(0.5), np.asarray(0.1), own=0.3, spread=0.8)
    z = np.random.default_rng(0).normal(size=10**6)
    squares = 1 + 0.7**2 * (0.2 + 0.3 * np.exp(0.8 * z - 0.32))
    inverse = squares**-0.5
    error = 4 * 2 * inverse.std() / np.sqrt(len(z))
    expected = inverse.mean() ** -2 / (1 + 0.7**2 * 0.5)
    assert 1 + seen.shortening(1.0, 0.7) == pytest.approx(expected, abs=2 * error)


def test_relu_kernel_is_the_arc_cosine():
    """Cho, Saul: E relu(a) relu(b) = (sin t + (pi - t) cos t)/(2 pi), t the angle."""
    rho = np.array([-1.0, -0.4, 0.0, 0.3, 0.9, 1.0])
    t = np.arccos(rho)
    exact = (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi)
    got = random_weights.mlp_overlaps(rho, activation="relu")
    np.testing.assert_allclose(got.square - got.contrast, exact, atol=1e-15)
    np.testing.assert_allclose(got.square, 0.5, rtol=1e-15)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_smooth_kernels_by_quadrature(activation):
    gain, rho = 1.5, 0.3
    act = {"gelu": lambda a: a * ndtr(a), "swiglu": lambda a: a / (1 + np.exp(-a))}[activation]
    z, w = np.polynomial.hermite_e.hermegauss(100)
    w = w / w.sum()
    a, b = np.sqrt(gain) * z[:, None], np.sqrt(gain) * (rho * z[:, None] + np.sqrt(1 - rho**2) * z)
    product = gain * np.einsum("i,j,ij->", w, w, act(a) * act(b))
    square = gain * (w @ act(a[:, 0]) ** 2)
    if activation == "swiglu":
        product, square = product * gain * rho, square * gain
    got = random_weights.mlp_overlaps(rho, activation=activation, gain=gain)
    assert got.square == pytest.approx(square, rel=1e-9)
    assert got.square - got.contrast == pytest.approx(product, rel=1e-9)


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_gaps_shrink_and_only_growing_schemes_grow(scheme, activation):
    """Attention and MLP of these activations contract; Peri-LN adds length 1 twice a layer."""
    path = random_weights.random_layer_course(
        scheme, 0.9, layers=24, n=128, variance=1.0, activation=activation, tau=6.0, alpha=0.5
    )
    assert np.all(np.diff(path.gap) < 0)
    grows = scheme in ("pre", "mix", "peri", "ln-scaling")
    assert (path.radius[-1] > 1.2) == grows
    if scheme == "peri":
        added = 24 if activation is None else 48
        assert path.radius[-1] == pytest.approx(np.sqrt(1 + added), rel=1e-12)


def test_near_consensus_a_post_ln_layer_divides_the_gap_by_1_plus_eta_squared():
    path = random_weights.random_layer_course("post", 1e-9, layers=4, n=128, variance=1.0, eta=0.5)
    np.testing.assert_allclose(path.gap[1:] / path.gap[:-1], 0.8, rtol=1e-8)


def test_pre_ln_keeps_gap_times_radius_squared_once_it_is_merged():
    path = random_weights.random_layer_course("pre", 1e-3, layers=500, n=128, variance=1.0)
    kept = path.gap * path.radius**2
    np.testing.assert_allclose(kept[-1] / kept[100], 1.0, rtol=1e-4)
    assert path.radius[-1] == pytest.approx(np.sqrt(501), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.score_variance(1.0, d=10, heads=3), "`heads` must divide d=10"),
        (lambda f: f.score_variance(-1.0, d=10), "`beta` must be"),
        (lambda f: f.seen_tokens(401.0, n=3), "`variance` must be at most 400"),
        (lambda f: f.seen_tokens(1.0, n=0), "`n` must be"),
        (lambda f: f.attention_overlaps(1.1, n=4, variance=1.0), "`rho` must lie"),
        (lambda f: f.mlp_overlaps(0.1, activation="gleu"), "Did you mean 'gelu'"),
        (lambda f: f.mlp_overlaps(0.1, activation="gelu", gain=0.0), "`gain` must be"),
        (
            lambda f: f.random_layer_course("none", layers=3, n=4, variance=1.0),
            "`scheme` must be one of",
        ),
        (lambda f: f.random_layer_course("post", layers=0, n=4, variance=1.0), "`layers` must be"),
        (
            lambda f: f.random_layer_course("mix", layers=3, n=4, variance=1.0, tau=3.0),
            "`tau` must lie within the run",
        ),
        (
            lambda f: f.random_layer_course("pre", layers=3, n=4, variance=1.0, radius=0.0),
            "`radius` must be",
        ),
    ],
)
def test_bad_input(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call(random_weights)
