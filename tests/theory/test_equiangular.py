import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from attnflow.theory import equiangular, gram

SA, USA = "sa", "usa"
COSINE = {SA: equiangular.cosine_sa, USA: equiangular.cosine_usa}
TIME = {SA: equiangular.time_sa, USA: equiangular.time_usa}


def raw_speed(rho, n, beta, model):
    """The equiangular ODE exactly as printed."""
    z = np.exp(beta) + (n - 1) * np.exp(beta * rho) if model == SA else n
    return 2 * np.exp(beta * rho) * (1 - rho) * (1 + (n - 1) * rho) / z


@pytest.mark.parametrize("model", [SA, USA])
@pytest.mark.parametrize("n", [2, 8, 128])
@pytest.mark.parametrize("beta", [-3.0, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_cosine_solves_the_printed_ode(model, n, beta, share):
    rho0 = -1 / (n - 1) + share * n / (n - 1)
    ts = np.linspace(0, 4 if model == SA else 4 * np.exp(-max(beta, 0)), 9)
    raw = solve_ivp(
        lambda t, rho: raw_speed(rho, n, beta, model),
        (0, ts[-1]), [rho0], t_eval=ts, method="DOP853", rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    got = COSINE[model](ts, rho0, n=n, beta=beta)
    np.testing.assert_allclose(got, raw.y[0], rtol=0, atol=1e-10)


def test_cosine_numbers(printed):
    printed(equiangular.cosine_sa([0, 2], 0.1, n=5, beta=2)[1], ".8398614556")
    printed(equiangular.cosine_sa([0, 3], 0.0, n=8, beta=4)[1], ".1798908690")
    printed(equiangular.cosine_usa([0, 0.5], 0.0, n=8, beta=4)[1], ".3696865801")
    printed(equiangular.cosine_kuramoto([0, 1.3], 0.05, n=6)[1], ".7358625351")


@pytest.mark.parametrize(
    ("model", "rho", "rho0", "n", "beta", "t"),
    [(SA, 0.8398614556, 0.1, 5, 2, 2.0), (SA, 0.179890869, 0, 8, 4, 3.0), (USA, 0.3696865801, 0, 8, 4, 0.5)],
)  # fmt: skip
def test_closed_form_numbers(model, rho, rho0, n, beta, t):
    digit = 0.5e-10 / raw_speed(rho, n, beta, model)  # rounding of the printed cosine, as a time
    assert abs(TIME[model](rho, rho0, n=n, beta=beta) - t) <= digit


@pytest.mark.parametrize("model", [SA, USA])
@pytest.mark.parametrize("n", [2, 3, 32, 1797])
@pytest.mark.parametrize("beta", [0.0, 1e-18, 1e-9, 0.3, 9.0, 25.0])
def test_closed_form_inverts_the_ode(model, n, beta):
    """Relative error of t: 1e-15 (1 + beta) for the panels, a few 1e-15 for the closed form."""
    rho0 = -0.5 / (n - 1)
    rho = rho0 + (1 - rho0) * np.array([1e-3, 0.1, 0.5, 0.9, 0.999])
    ts = TIME[model](rho, rho0, n=n, beta=beta)
    reached = COSINE[model](np.append(0, ts), rho0, n=n, beta=beta)[1:]
    tolerance = 4e-15 * (1 + beta) * ts * raw_speed(rho, n, beta, model) + 1e-15
    assert (np.abs(reached - rho) <= tolerance).all()


@pytest.mark.parametrize("model", [SA, USA])
@pytest.mark.parametrize("n", [2, 32])
@pytest.mark.parametrize("beta", [0.0, 0.5, 20.0, 49.9, 50.1, 120.0, 1e3, 1e5])
@pytest.mark.parametrize("rho0", [0.0, 0.9])
def test_closed_form_is_the_quadrature_at_any_beta(model, n, beta, rho0):
    """Adaptive quadrature of d rho / speed, both divided by e^(beta (1 - rho0)) to stay finite."""
    low, high = 0.001, 1 - rho0

    def slowness(g):
        pull = np.exp(beta * (g - high))
        top = pull if model == USA else (pull + (n - 1) * np.exp(-beta * high)) / n
        return n * top / (2 * g * (n - (n - 1) * g))

    split = max(low, high - 40 / max(beta, 1))
    parts = [quad(slowness, *ab, epsabs=0, epsrel=1e-12, limit=400)[0] for ab in ((split, high),)]
    if split > low:
        parts.append(
            quad(slowness, low, split, epsabs=1e-13 * parts[0], epsrel=1e-12, limit=400)[0]
        )
    expected = np.log(sum(parts)) + beta * (high - (1 if model == USA else 0))
    got = equiangular.gap_time(low, high, n=n, beta=beta, model=model, log=True)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("model", [SA, USA])
@pytest.mark.parametrize("beta", [0.0, 0.7, 30.0])
def test_times_add_up(model, beta):
    """A chain of steps, from 1e-6 to long, meets every branch of the closed form."""
    rho = np.append(np.geomspace(1e-6, 0.9, 40) - 0.02, 0.99999)
    steps = TIME[model](rho[1:], rho[:-1], n=32, beta=beta)
    np.testing.assert_allclose(
        steps.sum(), TIME[model](rho[-1], rho[0], n=32, beta=beta), rtol=1e-13
    )
    np.testing.assert_array_equal(TIME[model](rho[:-1], rho[1:], n=32, beta=beta), -steps)


def test_times_overflow_to_inf_and_logs_do_not():
    assert equiangular.phase_curve(1e3, n=32) == np.inf
    log_t = equiangular.phase_curve([1e3, 1e6], n=32, log=True)
    laplace = np.array([1e3, 1e6]) - np.log(2 * np.array([1e3, 1e6]))  # e^beta / (2 beta)
    np.testing.assert_allclose(log_t, laplace, rtol=0, atol=40 / 1e3)  # relative error O(n / beta)


@pytest.mark.parametrize("n", [2, 3, 50, 1797])  # 1 - 49 (1/49) is not 0 in floating point
@pytest.mark.parametrize("cosine", COSINE.values(), ids=COSINE)
def test_fixed_points_stay(cosine, n):
    ts = [0.0, 1.0, 50.0]
    simplex = -1 / (n - 1)
    np.testing.assert_array_equal(cosine(ts, 1.0, n=n, beta=3.0), 1.0)
    np.testing.assert_allclose(cosine(ts, simplex, n=n, beta=3.0), simplex, rtol=1e-15)
    np.testing.assert_allclose(
        equiangular.gap(ts, n / (n - 1), n=n, beta=3.0), 1 - simplex, rtol=1e-15
    )
    np.testing.assert_array_equal(equiangular.gap(ts, 0.0, n=n, beta=3.0), 0.0)


def test_ends_take_forever():
    times = equiangular.time_sa([-0.25, 0.1, 1.0], 0.1, n=5, beta=3.0)
    np.testing.assert_array_equal(times, [-np.inf, 0.0, np.inf])


def test_gaps_far_below_rounding():
    """At consensus time is log(gap) / 2, to a relative 1 + O(beta gap)."""
    t = equiangular.gap_time(1e-300, 1e-290, n=5, beta=3.0)
    np.testing.assert_allclose(t, 5 * np.log(10), rtol=1e-13)
    t = equiangular.gap_time(1e-300, 1.0, n=5, beta=3.0)
    np.testing.assert_allclose(equiangular.gap([0, t], 1.0, n=5, beta=3.0)[1], 1e-300, rtol=1e-12)
    np.testing.assert_allclose(
        equiangular.gap([0, 1], 1e-12, n=5, beta=3.0)[1], 1e-12 * np.exp(-2), rtol=1e-10
    )


def test_usa_collapse_at_large_beta():
    """Collapse takes e^-beta: a fixed-precision integrator in t cannot see it."""
    blow_up = equiangular.time_usa(0.5, 0.0, n=5, beta=1e3)
    rho = equiangular.cosine_usa(
        blow_up * np.array([0, 0.5, 1 - 1e-9, 1 + 1e-9]), 0.0, n=5, beta=1e3
    )
    assert rho[1] < 2e-3
    assert rho[2] < 0.03
    assert rho[3] == 1


def test_prefactor_numbers(printed):
    def constant(n, beta):
        return equiangular.prefactor(0.0, n=n, beta=beta)

    printed(constant(8, [1, 4]), "12.26520 18481.40")
    printed(constant(32, [1, 4]), "37.85689 1097.009")
    printed(constant(128, [1, 4]), "135.81396 508.9595")
    np.testing.assert_allclose(constant(8, [0.0, 1e-12]), 8, rtol=1e-11)


@pytest.mark.parametrize(("model", "beta", "clock"), [(SA, 2.0, 1.0), (USA, 2.0, np.exp(2.0))])
def test_prefactor_is_the_limit_of_the_run(model, beta, clock):
    """Next order is O((1 + beta n) gap), 1e-13 here."""
    t = 18 / clock
    gap = equiangular.gap([0, t], 0.9, n=6, beta=beta, model=model)[1]
    limit = equiangular.prefactor(0.1, n=6, beta=beta, model=model)
    np.testing.assert_allclose(gap * np.exp(2 * clock * t), limit, rtol=1e-10)


def test_initial_speeds():
    assert equiangular.speed(0.0, n=32, beta=2.0) == pytest.approx(2 / (np.exp(2) + 31), rel=1e-15)
    assert equiangular.speed(0.0, n=32, beta=2.0, model=USA) == 2 / 32
    assert equiangular.speed(0.0, n=32, beta=1e4) == 0
    for model in (SA, USA):
        rho = np.linspace(-0.2, 1, 7)
        np.testing.assert_allclose(
            equiangular.speed(rho, n=6, beta=-2.0, model=model), raw_speed(rho, 6, -2.0, model), rtol=1e-13
        )  # fmt: skip


def test_phase_curve_table(printed):
    beta = [0, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    printed(
        equiangular.phase_curve(beta, n=32),
        "5.1863 5.2202 5.2703 5.4584 5.8976 6.9535 9.5443 15.9953 32.2331 73.4457 178.7309",
    )
    printed(
        equiangular.phase_curve(beta, n=128),
        "5.8794 5.8912 5.9090 5.9787 6.1481 6.5695 7.6342 10.3530 17.3504 35.4675 82.5934",
    )


@pytest.mark.parametrize("n", [2, 32, 128])
def test_phase_curve_at_beta_zero(n):
    delta = 1e-3
    for model in (SA, USA):
        np.testing.assert_allclose(
            equiangular.phase_curve(0.0, n=n, delta=delta, model=model),
            np.log((n * (1 - delta) + delta) / delta) / 2,
            rtol=1e-14,
        )


@pytest.mark.parametrize(
    ("model", "degrees", "times"),
    [
        (SA, 90, "3.8002 4.27107 5.16326 10.8312 39.1626 196.716 1130.15 1.1000e5 1.21918e7"),
        (SA, 60, "3.2509 3.41569 3.63447 4.33922 5.72911 8.63453 14.9913 94.133 803.312"),
        (SA, 120, "4.34951 5.52605 9.00984 61.3217 793.68 12139 198020 2.44768e8 3.36866e11"),
        (USA, 90, "3.8002 1.74446 .883243 .327158 .184729 .130707 .102445 .0672975 .0502582"),
        (USA, 60, "3.2509 1.31719 .543783 .0994089 .0203439 .00470257 .00121362 5.65966e-5 3.3048e-6"),
        (USA, 120, "4.34951 2.46575 1.85006 2.16663 3.92389 8.14293 17.98 149.75 1388.66"),
    ],
)  # fmt: skip
def test_two_tokens_are_the_two_cluster_table(printed, model, degrees, times):
    beta = np.array([0, 1, 2, 4, 6, 8, 10, 15, 20])
    printed(TIME[model](0.999, np.cos(np.radians(degrees)), n=2, beta=beta), times)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_causal_pair(beta):
    ts, rho0 = np.linspace(0, 5, 6), -0.3

    def rhs(t, c):
        return np.exp(beta * c) * (1 - c**2) / (np.exp(beta) + np.exp(beta * c))

    raw = solve_ivp(rhs, (0, 5), [rho0], t_eval=ts, method="DOP853", rtol=1e-12, atol=1e-13).y[0]
    got = equiangular.cosine_causal_pair(ts, rho0, beta=beta)
    np.testing.assert_allclose(got, raw, rtol=0, atol=1e-10)
    pair = np.array([[1, rho0], [rho0, 1]])
    np.testing.assert_allclose(
        got, gram.gram(ts, pair, beta=beta, mask="causal")[:, 0, 1], atol=1e-11
    )


def test_attention_entropy(printed):
    printed(equiangular.attention_entropy(0.3, n=32, beta=4), "2.88906410")
    for n, beta, rho in [(2, 0.0, 0.0), (5, 3.0, -0.25), (9, 20.0, 0.4)]:
        row = np.exp(beta * np.append(1.0, np.full(n - 1, rho)))
        row /= row.sum()
        np.testing.assert_allclose(
            equiangular.attention_entropy(rho, n=n, beta=beta),
            -(row * np.log(row)).sum(),
            rtol=1e-12,
        )
    assert equiangular.attention_entropy(0.0, n=3, beta=1e5) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equiangular.cosine_sa([0, 1], 0.1, n=5, beta=np.nan), "`beta` must be finite"),
        (lambda: equiangular.cosine_sa([0, 1], 1.1, n=5, beta=1.0), r"`rho0` must lie in \[-0.25, 1\]"),
        (lambda: equiangular.cosine_usa([0, 1], -0.3, n=5, beta=1.0), "No 5 vectors"),
        (lambda: equiangular.cosine_sa([0, 1], 0.1, n=1, beta=1.0), "`n` must be a whole number >= 2"),
        (lambda: equiangular.cosine_sa([0, 0], 0.1, n=5, beta=1.0), "`ts` must increase strictly"),
        (lambda: equiangular.cosine_sa([0, np.inf], 0.1, n=5, beta=1.0), "`ts` must be finite"),
        (lambda: equiangular.cosine_sa([], 0.1, n=5, beta=1.0), "`ts` must be a list of times"),
        (lambda: equiangular.time_sa(0.5, 0.1, n=5, beta=-1.0), "`beta` must be finite and >= 0"),
        (lambda: equiangular.time_usa(0.5, 1.0, n=5, beta=1.0), "The ends are fixed points"),
        (lambda: equiangular.time_usa([0.5, np.nan], 0.1, n=5, beta=1.0), "`rho` must lie in"),
        (lambda: equiangular.gap_time(0.5, 0.1, n=5, beta=1.0, log=True), "`gap` must lie below"),
        (lambda: equiangular.gap_time(0.5, 0.0, n=5, beta=1.0), "`gap0` must lie strictly"),
        (lambda: equiangular.gap([0, 1], 1.3, n=5, beta=1.0), "`gap0` must lie in"),
        (lambda: equiangular.gap([0, 1], 0.3, n=5, beta=1.0, model="us"), "Did you mean 'usa'"),
        (lambda: equiangular.phase_curve(1.0, n=5, delta=1.0), "`delta` must lie strictly"),
        (lambda: equiangular.attention_entropy(0.5, n=5, beta=-1.0), "`beta` must be"),
        (lambda: equiangular.prefactor(2.0, n=5, beta=1.0), "`rho0` must lie"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
