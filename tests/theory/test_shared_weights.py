import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import iv

from attnflow.theory.shared_weights import shared_weights_cosine

N, GAIN = 100, 2.0


def bessel(clock):
    return iv(0, 2 * np.sqrt(GAIN) * clock)


def length(clock):
    """Length of tokens whose own part stays 1."""
    return np.sqrt(1 + (bessel(clock) - 1) / N)


@pytest.mark.parametrize("scheme", ["post", "sqrt", "pre", "ln-scaling"])
def test_uniform_attention_is_bessel_in_the_clock_of_the_scheme(scheme):
    """At variance 0 nothing selects: rho = (I_0 - 1)/(n - 1 + I_0), and time follows from its clock by quadrature."""
    for clock in (0.3, 1.0, 2.0):
        t = clock if scheme in ("post", "sqrt") else quad(length, 0, clock)[0]  # dt = r d clock
        t = t if scheme in ("post", "pre") else (1 + t / 2) ** 2 - 1
        got = shared_weights_cosine(scheme, [0.0, t], n=N, variance=0.0, gain=GAIN)
        assert got[0] == 0
        exact = (bessel(clock) - 1) / (N - 1 + bessel(clock))
        assert got[1] == pytest.approx(exact, rel=1e-6)


def test_selection_slows_collapse():
    """Own parts grow where attention selects."""
    rho = [
        shared_weights_cosine("post", [0, 2.0], n=N, variance=v, gain=GAIN)[1] for v in (0, 2, 8)
    ]
    assert rho[0] > rho[1] > rho[2] > 0


def test_mix_starts_as_post_and_ends_slower():
    ts = np.array([0.0, 1.0, 2.0, 6.0])
    post, mix, pre = (
        shared_weights_cosine(s, ts, n=N, variance=1.0, tau=2.0) for s in ("post", "mix", "pre")
    )
    np.testing.assert_allclose(mix[:3], post[:3], rtol=1e-6)
    assert pre[3] < mix[3] < post[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "none"}, "`scheme` must be one of"),
        ({"ts": [-1.0, 1.0]}, "`ts` must be"),
        ({"gain": 0.0}, "`gain` must be"),
        ({"variance": 500.0}, "`variance` must be at most 400"),
        ({"scheme": "mix", "tau": 3.0}, "`tau` must lie within the run"),
        ({"n": 1}, "`n` must be"),
    ],
)
def test_bad_input(options, message, untyped):
    given = {"scheme": "post", "ts": [0.0, 2.0], "n": N, "variance": 1.0} | options
    with pytest.raises(ValueError, match=message):
        shared_weights_cosine(given.pop("scheme"), given.pop("ts"), **given)
