import numpy as np
import pytest

from attnflow.theory import equiangular, normalization


def equiangular_tokens(n, rho):
    """Rows of a square root of (1 - rho) I + rho."""
    values, vectors = np.linalg.eigh((1 - rho) * np.eye(n) + rho)
    return vectors * np.sqrt(values)


def test_step_numbers(printed):
    printed(normalization.post_ln_step(0.2, n=6, beta=2, eta=0.3), ".283433106795")


@pytest.mark.parametrize("n", [2, 6, 40])
@pytest.mark.parametrize("beta", [-2.0, 0.0, 3.0, 60.0])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_step_is_a_real_layer(n, beta, eta):
    for rho in (-0.9 / (n - 1), 0.0, 0.4, 0.999):
        x = equiangular_tokens(n, rho)
        weights = np.exp(beta * (x @ x.T - 1))
        y = x + eta * weights @ x / weights.sum(axis=1, keepdims=True)
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        cosines = (y @ y.T)[~np.eye(n, dtype=bool)]
        got = normalization.post_ln_step(rho, n=n, beta=beta, eta=eta)
        np.testing.assert_allclose(cosines, got, rtol=0, atol=1e-14)


def test_fixed_points_stay():
    for n in (2, 5, 7):
        ends = np.array([-1 / (n - 1), 1.0])
        np.testing.assert_allclose(
            normalization.post_ln_step(ends, n=n, beta=3.0, eta=1.0), ends, rtol=1e-15
        )


def test_local_rate_is_not_that_of_the_flow(printed):
    """Displacements contract by 1 / (1 + eta) a layer, 1 - rho by its square."""
    gap = 1 - normalization.cosine_post_ln(0.999, steps=60, n=8, beta=2.0, eta=0.1)
    printed(np.log(gap[50] / gap[60]) / 2, ".9531018")
    assert normalization.cosine_post_ln(0.0, steps=0, n=8, beta=2.0, eta=0.1) == [0.0]


def test_small_steps_converge_to_the_flow_at_first_order():
    flow = equiangular.cosine_sa([0, 3], 0.1, n=8, beta=3.0)[1]
    steps = [100, 200, 400, 800]
    errors = [
        abs(normalization.cosine_post_ln(0.1, steps=k, n=8, beta=3.0, eta=3 / k)[-1] - flow)
        for k in steps
    ]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.05


def test_phase_curves(printed):
    printed(
        normalization.phase_curve_post_ln([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], n=32, eta=0.1),
        "5.5 5.6 5.8 6.3 7.5 10.4 17.5 35.4 80.8 196.7",
    )
    printed(
        normalization.phase_curve_post_ln([0, 1, 2, 3, 4, 5, 6], n=32, eta=1), "8 8 9 10 12 18 31"
    )
    assert normalization.phase_curve_post_ln(9.0, n=32, eta=1, max_steps=10) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normalization.post_ln_step(0.1, n=4, beta=1.0, eta=-1.0), "`eta` must be"),
        (lambda: normalization.post_ln_step(-0.5, n=4, beta=1.0, eta=1.0), "`rho` must lie"),
        (lambda: normalization.post_ln_step(0.5, n=1, beta=1.0, eta=1.0), "`n` must be"),
        (lambda: normalization.cosine_post_ln(0.1, steps=-1, n=4, beta=1.0, eta=1.0), "`steps`"),
        (lambda: normalization.phase_curve_post_ln(np.nan, n=4, eta=1.0), "`beta` must be"),
        (lambda: normalization.phase_curve_post_ln(1.0, n=4, eta=0.0), "`eta` must be"),
        (lambda: normalization.phase_curve_post_ln(1.0, n=4, eta=1.0, delta=0.0), "`delta`"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
