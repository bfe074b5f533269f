"""Rules for the logits: in a thousand digits, at n0, in their limits, and as released code has them."""

import mpmath as mp
import numpy as np
import pytest

from attnflow.theory import long_context
from attnflow.theory.logit_rules import (
    keep_cosine,
    lead_of_participation,
    llama4,
    log_n,
    ssmax,
    yarn,
)


def exact(n, n0, lead, rho):
    """Factor in 1000 digits: the cosine of n0 tokens, then the lead of n tokens that have it."""
    with mp.workdps(1000):
        n, n0, lead, rho = (mp.mpf(float(value)) for value in (n, n0, lead, rho))
        delta = (mp.exp(lead) - 1) / (mp.exp(lead) + n0 - 1)
        odds = delta**2 / (1 - delta**2) * (rho + (1 - rho) / n) / (rho + (1 - rho) / n0)
        delta = mp.sqrt(odds / (1 + odds))
        return float(mp.log(1 + n * delta / (1 - delta)) / lead)


@pytest.mark.parametrize("n", [2, 300, 2**20, 10**12])
@pytest.mark.parametrize("lead", [1e-9, 1e-3, 0.5, 6.0, 40.0, 1e3])
def test_in_a_thousand_digits(n, lead):
    """No digit is lost near collapse (leads of 1e-9) or the identity (1e3)."""
    for n0, rho in ((2, 0.0), (512, 0.0), (512, 0.3), (2**17, 1.0)):
        np.testing.assert_allclose(
            keep_cosine(n, n0=n0, lead=lead, rho=rho), exact(n, n0, lead, rho), rtol=1e-12
        )


def test_it_is_the_scale_for_the_cosine():
    """The same by the functions of the long context, where their cosine has digits left."""
    n, n0, rho, beta = np.array([128, 4096, 2**20]), 512, 0.4, 9.0
    cosine = long_context.output_cosine(rho, n=n0, beta=beta)
    scale = long_context.scale_for_cosine(cosine, rho, n=n)
    factor = keep_cosine(n, n0=n0, lead=beta * (1 - rho), rho=rho)
    np.testing.assert_allclose(factor, scale / beta, rtol=1e-13)
    kept = long_context.output_cosine(rho, n=n, beta=factor * beta)
    np.testing.assert_allclose(kept, cosine, rtol=1e-14)


def test_all_rules_are_one_at_the_training_length():
    n0 = np.array([2, 512, 4096])
    for factor in (
        ssmax(n0, s=1 / np.log(n0)),
        log_n(n0, n0=n0),
        yarn(n0, n0=n0),
        llama4(n0),
        keep_cosine(n0, n0=n0, lead=3.0, rho=0.2),
    ):
        np.testing.assert_allclose(factor, 1, rtol=1e-14)


def test_limits():
    """Few leads: 1 + log(n/n0)/lead; none: n/n0 sqrt(m/m0), at most n/n0; many tokens at the critical one: log n."""
    n, n0 = 2**20, 2**12
    strong = keep_cosine(n, n0=n0, lead=30.0, rho=0.5)
    np.testing.assert_allclose(strong, 1 + np.log(n / n0) / 30, rtol=1e-4)  # 1/n0 over 30
    weak = keep_cosine(n, n0=n0, lead=1e-9, rho=[0.0, 0.5])
    np.testing.assert_allclose(weak, [np.sqrt(n / n0), n / n0], rtol=1e-3)  # m up to 1/n0
    critical = keep_cosine(n, n0=n0, lead=np.log(n0), rho=0.5)
    np.testing.assert_allclose(critical, log_n(n, n0=n0), rtol=1e-4)  # 1/n0 over log n
    leads = np.geomspace(1e-3, 100, 50)
    assert (np.diff(keep_cosine(n, n0=n0, lead=leads, rho=0.3)) < 0).all()
    assert (np.diff(keep_cosine([100, n0, n], n0=n0, lead=2.0, rho=0.3)) > 0).all()


@pytest.mark.parametrize("n", [2, 50, 2**20])
def test_participation_and_back(n):
    leads = np.array([0.01, 1.0, 5.0, 20.0])
    own = 1 / (1 + (n - 1) * np.exp(-leads))
    squares = own**2 + (1 - own) ** 2 / (n - 1)
    # A lead of 0.01 moves the squares by 1e-4/n; one of 20 leaves n 2e-9 of the weight to others.
    np.testing.assert_allclose(lead_of_participation(1 / squares, n=n), leads, rtol=1e-6)
    assert lead_of_participation(n, n=n) == 0
    assert lead_of_participation(1, n=n) == np.inf


def test_yarn_and_llama4_as_released():
    """Factors of transformers: of the rotation, which queries and keys both have, and of queries."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for ratio in (1.0, 4.0, 32.0):
        rope = {"rope_type": "yarn", "factor": ratio, "rope_theta": 1e4,
                "original_max_position_embeddings": 4096}  # fmt: skip
        config = LlamaConfig(rope_parameters=rope, max_position_embeddings=int(4096 * ratio))
        rotation = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")[1]
        np.testing.assert_allclose(yarn(4096 * ratio, n0=4096), rotation**2, rtol=1e-15)
    position = np.array([0, 8190, 8191, 1e5, 1e7])
    released = np.log(np.floor((position[1:] + 1.0) / 8192) + 1.0) * 0.1 + 1.0
    np.testing.assert_allclose(llama4(position[1:] + 1), released, rtol=1e-15)


@pytest.mark.parametrize(
    ("function", "changes", "message"),
    [
        (ssmax, {"s": np.inf}, "`s` must be finite"),
        (ssmax, {"n": 1, "s": 1.0}, "`n` must be a whole number >= 2"),
        (log_n, {"n0": 1}, "`n0` must be a whole number >= 2"),
        (yarn, {"n0": 2.5}, "`n0` must be a whole number >= 2"),
        (llama4, {"floor": 0}, "`floor` must be finite and > 0"),
        (llama4, {"rate": -1}, "`rate` must be finite and >= 0"),
        (keep_cosine, {"n0": 8, "lead": 0.0, "rho": 0.5}, "`lead` must be finite and > 0"),
        (keep_cosine, {"n0": 8, "lead": 1.0, "rho": -0.1}, r"`rho` must lie in \[0, 1\]"),
    ],
)
def test_bad_input(function, changes, message):
    with pytest.raises(ValueError, match=message):
        function(**({"n": 64} | changes))


def test_bad_participation():
    with pytest.raises(ValueError, match=r"`participation` must lie in \[1, n\]"):
        lead_of_participation(9.0, n=8)
