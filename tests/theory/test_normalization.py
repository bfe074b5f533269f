import mpmath
import numpy as np
import pytest

from attnflow.theory import equiangular, normalization

SCHEMES = normalization.SCHEMES
GROWING = ("pre", "peri", "ln-scaling")


def schedule(t):
    """Rate of ngpt in THEORY 8.2."""
    return 0.8 / np.sqrt(1 + t)


def options(scheme, *, tau=1.0):
    """Switch of mix and schedule of ngpt, as in THEORY 8.2."""
    return {"tau": tau, "alpha": schedule if scheme == "ngpt" else 1.0}


def equiangular_tokens(n, rho):
    """Rows of a square root of (1 - rho) I + rho."""
    values, vectors = np.linalg.eigh((1 - rho) * np.eye(n) + rho)
    return vectors * np.sqrt(np.maximum(values, 0))


def attention(theta, beta):
    """Softmax attention vectors, summed in the plainest way."""
    weights = np.exp(beta * (theta @ theta.T - 1))
    return weights @ theta / weights.sum(axis=1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# ---------------------------------------------------------------------------------- printed numbers


@pytest.mark.parametrize(
    ("scheme", "cosine", "radius"),
    [
        ("post", ".977715837", "1"),
        ("pre", ".298535889", "4.487566175"),
        ("mix", ".753021700", "3.156066508"),
        ("peri", ".394410977", "5.509908826"),
        ("ngpt", ".750754044", "1"),
        ("sqrt", ".698000833", "1"),
        ("ln-scaling", ".202248714", "3.445528075"),
    ],
)
def test_cosine_and_radius_at_t_4(scheme, cosine, radius, printed):
    start = 1.7 if scheme in GROWING else 1.0
    end = normalization.course(
        scheme, [0, 4], 0.95, n=8, beta=3, radius=start, **options(scheme)
    )  # fmt: skip
    printed(end.cosine[1], cosine)
    printed(end.radius[1], radius)


@pytest.mark.parametrize(
    ("scheme", "cosines", "radius"),
    [
        ("post", ".122098 .504203 .997503 1.000000", "1"),
        ("pre", ".102653 .338351 .869257 .975233", "8.3353"),
        ("mix", ".122098 .439888 .918566 .984638", "8.51948"),
        ("peri", ".431443 .725848 .938517 .983471", "10.20593"),
        ("ngpt", ".360258 .686990 .962385 .997608", "1"),
        ("sqrt", ".087045 .262839 .857301 .994814", "1"),
        ("ln-scaling", ".076188 .196370 .584458 .843304", "3.29735"),
    ],
)
def test_cosines_over_time(scheme, cosines, radius, printed):
    path = normalization.course(scheme, [0, 1, 2, 5, 10], n=32, beta=2, **options(scheme))
    printed(path.cosine[1:], cosines)
    printed(path.radius[-1], radius)
    again = normalization.cosine(scheme, [0, 1, 2, 5, 10], 0.0, n=32, beta=2, **options(scheme))
    np.testing.assert_array_equal(again, path.cosine)


@pytest.mark.parametrize(
    ("scheme", "number"),
    [
        ("post", ".05209818"), ("mix", ".05209818"), ("sqrt", ".05209818"), ("pre", ".02604909"),
        ("ln-scaling", ".02604909"), ("peri", ".10808559"), ("ngpt", ".17293695"),
    ],
)  # fmt: skip
def test_initial_speeds(scheme, number, printed):
    radius = 2.0 if scheme in GROWING else 1.0
    got = normalization.speed(scheme, 0.0, n=32, beta=2, radius=radius, tau=1.0, alpha=0.8)
    printed(got, number)


@pytest.mark.parametrize(
    ("scheme", "cosine", "radius"),
    [
        ("post", ".283433106795", "1"),
        ("pre", ".262052717750", "1.581732916312"),
        ("peri", ".289015626118", "1.675922644342"),
        ("ngpt", ".306558432759", "1"),
    ],
)
def test_one_layer(scheme, cosine, radius, printed):
    got = normalization.layer_step(scheme, 0.2, n=6, beta=2, eta=0.3, radius=1.4, alpha=0.7)
    printed(got.cosine, cosine)
    printed(got.radius, radius)


def test_terminal_constants(printed):
    """THEORY 8.3, which prints three that were read off at finite t: 1.5332, 6100.87 and 12.26540."""
    pre = lambda n, beta: normalization.terminal_constant("pre", n=n, beta=beta)
    printed([pre(8, 0.001), pre(8, 1), pre(8, 2)], "1.0003 1.5331 3.735")
    printed([pre(32, 1), pre(32, 2)], "1.183 1.7234")
    printed([pre(256, 1), pre(256, 2), pre(256, 5)], "1.0347 1.1228 8.3391")
    assert pre(32, 5) == pytest.approx(6101.518576757306, rel=1e-13)
    post = normalization.terminal_constant("post", n=8, beta=1)
    assert post == pytest.approx(12.265198221911423, rel=1e-13)


# ------------------------------------------------------------------------------------------- flows


def test_post_ln_is_the_equiangular_flow():
    ts = np.array([0.0, 0.3, 2.0, 7.0, 40.0, 300.0])
    for n, beta in ((2, 0.0), (8, 3.0), (5, -2.0), (32, 9.0)):
        got = normalization.course("post", ts, 0.9, n=n, beta=beta).gap
        # Steps of 1e-13 in log(gap), some hundred of them.
        np.testing.assert_allclose(got, equiangular.gap(ts, 0.9, n=n, beta=beta), rtol=2e-11)


def test_sqrt_scaling_is_post_ln_in_another_clock():
    ts = np.array([0.0, 1.0, 9.0, 400.0])
    clock = 2 * (np.sqrt(ts + 1) - 1)
    got = normalization.course("sqrt", ts, n=8, beta=1.0).gap
    np.testing.assert_allclose(got, equiangular.gap(clock, 1.0, n=8, beta=1.0), rtol=2e-11)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("scheme", GROWING)
def test_growing_schemes_trace_one_orbit(scheme, beta):
    """Down to gaps far below rounding, from radii other than 1."""
    path = normalization.course(
        scheme, [0, 0.5, 3, 50, 1e4, 1e9, 1e30], 0.8, n=8, beta=beta, radius=1.7
    )
    orbit = normalization.orbit_radius(path.gap, 0.8, n=8, beta=beta, radius=1.7)
    np.testing.assert_allclose(path.radius, orbit, rtol=1e-10)


def test_gaps_reach_1e_300():
    assert 0 < normalization.course("pre", [0, 1e149], n=8, beta=1.0).gap[1] < 1e-297
    gap = normalization.course("post", [0, 344.0], n=8, beta=1.0).gap[1]
    expected = normalization.terminal_gap("post", 344.0, n=8, beta=1.0)
    assert gap == pytest.approx(float(expected), rel=1e-10, abs=0)
    assert gap < 2e-298


@pytest.mark.parametrize("scheme", SCHEMES)
def test_speed_is_the_slope_of_the_course(scheme):
    """Central differences err by h^2 times the third derivative, here below 10."""
    h, t = 1e-3, 0.6
    kw = {"n": 8, "beta": 1.5} | options(scheme, tau=0.3)
    path = normalization.course(scheme, [0, t - h, t, t + h], 0.7, radius=1.2, **kw)
    slope = (path.cosine[3] - path.cosine[1]) / (2 * h)
    got = normalization.speed(scheme, path.cosine[2], radius=path.radius[2], t=t, **kw)
    assert got == pytest.approx(slope, abs=10 * h**2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_speed_and_factor_from_the_plainest_sum(scheme):
    """d theta/dt = P A / s from vectors, with no reduction."""
    n, beta, rho, r, t = 7, 1.3, 0.25, 1.6, 2.0
    theta = equiangular_tokens(n, rho)
    x = r * theta
    seen = attention_of_x(x, beta) if scheme == "none" else attention(theta, beta)
    tangential = seen - np.sum(seen * theta, axis=1, keepdims=True) * theta
    kw = {"n": n, "beta": beta, "radius": r, "t": t} | options(scheme)
    s = normalization.speed_factor(scheme, rho, **kw)
    change = tangential / s
    slope = change[0] @ theta[1] + change[1] @ theta[0]
    assert normalization.speed(scheme, rho, **kw) == pytest.approx(slope, rel=1e-12)


def attention_of_x(x, beta):
    """Attention that sees radii."""
    weights = np.exp(beta * (x @ x.T - (x @ x.T).max()))
    return weights @ x / weights.sum(axis=1, keepdims=True)


def test_no_ln_freezes():
    """Radii grow like e^t, so scores beta r^2 sharpen until tokens see themselves alone."""
    path = normalization.course("none", [0, 5, 10, 400], 0.9, n=8, beta=1.0)
    assert path.gap[2] == pytest.approx(path.gap[3], rel=1e-12)
    assert path.gap[3] > 0.2
    assert path.radius[2] / path.radius[1] == pytest.approx(np.exp(5), rel=1e-10)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fixed_points_stay_and_their_radii_move(scheme):
    kw = {"n": 5, "beta": 2.0} | options(scheme)
    merged = normalization.course(scheme, [0, 2, 4], 0.0, **kw)
    assert np.all(merged.gap == 0)
    growth = {"pre": 5.0, "peri": 5.0, "mix": 4.0, "none": np.exp(4)}
    growth["ln-scaling"] = 1 + 2 * (np.sqrt(5) - 1)
    np.testing.assert_allclose(merged.radius[2], growth.get(scheme, 1.0), rtol=1e-11)
    simplex = normalization.course(scheme, [0, 2, 4], 1.25, **kw)
    assert np.all(simplex.gap == 1.25)


# ------------------------------------------------------------------------------------------ layers


def real_layer(scheme, x, beta, eta, t, tau, alpha):
    """One layer of vectors, written out for every scheme."""
    theta = unit(x)
    a = attention_of_x(x, beta) if scheme == "none" else attention(theta, beta)
    if scheme == "mix":
        scheme = "post" if t < tau else "pre"
    return {
        "post": lambda: unit(theta + eta * a),
        "pre": lambda: x + eta * a,
        "peri": lambda: x + eta * unit(a),
        "ngpt": lambda: unit(theta + eta * alpha * (unit(a) - theta)),
        "sqrt": lambda: unit(theta + eta * a / np.sqrt(t + 1)),
        "ln-scaling": lambda: x + eta * a / np.sqrt(t + 1),
        "none": lambda: x + eta * a,
    }[scheme]()


@pytest.mark.parametrize("n", [2, 6, 40])
@pytest.mark.parametrize("beta", [-2.0, 0.0, 3.0, 60.0])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_layer_is_a_real_layer(scheme, n, beta):
    """1e-12: rounding of unit vectors, over the shortest A (about .1) of those that are normalised."""
    for rho in (-0.9 / (n - 1), 0.0, 0.4, 0.999):
        for eta, t in ((0.3, 0.0), (1.0, 2.0)):
            kw = {"tau": 1.0, "alpha": 0.7}
            r = 1.4 if scheme in (*GROWING, "none") else 1.0
            y = real_layer(scheme, r * equiangular_tokens(n, rho), beta, eta, t, *kw.values())
            radii = np.linalg.norm(y, axis=1)
            got = normalization.layer_step(
                scheme, rho, n=n, beta=beta, eta=eta, radius=r, t=t, **kw
            )
            cosines = (unit(y) @ unit(y).T)[~np.eye(n, dtype=bool)]
            np.testing.assert_allclose(cosines, got.cosine, rtol=0, atol=1e-12)
            np.testing.assert_allclose(radii, got.radius, rtol=1e-12)


def test_fixed_points_of_post_ln_stay():
    for n in (2, 5, 7):
        ends = np.array([-1 / (n - 1), 1.0])
        got = normalization.layer_step("post", ends, n=n, beta=3.0, eta=1.0)
        np.testing.assert_allclose(got.cosine, ends, rtol=1e-15)


def test_local_rate_is_not_that_of_the_flow(printed):
    """Displacements contract by 1 / (1 + eta) a layer, 1 - rho by its square."""
    gap = normalization.layer_course("post", 1e-3, layers=60, n=8, beta=2.0, eta=0.1).gap
    printed(np.log(gap[50] / gap[60]) / 2, ".9531018")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_small_steps_converge_to_the_flow_at_first_order(scheme):
    kw = {"n": 8, "beta": 2.0} | options(scheme)
    flow = normalization.course(scheme, [0, 2], 0.9, **kw).gap[1]
    steps = [200, 400, 800]
    errors = [
        abs(normalization.layer_course(scheme, 0.9, layers=k, eta=2 / k, **kw).gap[-1] - flow)
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


# ---------------------------------------------------------------------------------------- collapse


@pytest.mark.parametrize(("n", "beta", "rho0"), [(8, 1.0, 0.0), (2, -3.0, 0.2), (32, 5.0, -0.02)])
def test_constants_against_thirty_digits(n, beta, rho0):
    with mpmath.workdps(30):
        g0, low = mpmath.mpf(1) - mpmath.mpf(rho0), mpmath.mpf(0)
        s = lambda h: n - (n - 1) * h
        excess = mpmath.quad(lambda h: mpmath.expm1(beta * h) / (h * s(h)), [low, g0 / 2, g0])

        def ngpt(h):
            rise = mpmath.expm1(beta * h)
            return (mpmath.sqrt(rise**2 + 2 * rise * s(h) + n * s(h)) - n) / (h * s(h))

        ratio = mpmath.quad(ngpt, [low, g0 / 2, g0])
        expected = {
            "post": n * g0 / s(g0) * mpmath.exp(excess),
            "pre": g0 * mpmath.exp(excess) * mpmath.mpf(1.7) ** 2,
            "ngpt": n * g0 / s(g0) * mpmath.exp(ratio),
        }
    expected |= {"peri": expected["pre"], "sqrt": expected["post"]}
    expected["ln-scaling"] = expected["pre"] / 4
    for scheme, value in expected.items():
        got = normalization.terminal_constant(scheme, rho0, n=n, beta=beta, radius=1.7)
        assert got == pytest.approx(float(value), rel=2e-12), scheme
        log = normalization.terminal_constant(scheme, rho0, n=n, beta=beta, radius=1.7, log=True)
        assert log == pytest.approx(np.log(got), rel=1e-12, abs=1e-14)


def test_constant_of_mix(printed):
    """THEORY 8.3: gap r^2 at t = 800 is .734119; the course gives its limit."""
    kw = {"n": 8, "beta": 1.0, "tau": 1.0}
    path = normalization.course("mix", [0, 800], **kw)
    printed(path.gap[1] * path.radius[1] ** 2, ".734119")
    late = normalization.course("mix", [0, 1e9], **kw)
    limit = normalization.terminal_constant("mix", **kw)
    assert late.gap[1] * late.radius[1] ** 2 == pytest.approx(limit, rel=1e-10)


def test_post_and_pre_share_one_constant():
    for n, beta, rho0 in ((8, 1.0, 0.0), (32, 4.0, 0.3), (5, -1.0, -0.2)):
        post = normalization.terminal_constant("post", rho0, n=n, beta=beta)
        pre = normalization.terminal_constant("pre", rho0, n=n, beta=beta)
        assert post == pytest.approx(n * pre / (1 + (n - 1) * rho0), rel=1e-13)
    assert normalization.terminal_constant("post", 0.0, n=8, beta=1.0) == pytest.approx(
        float(equiangular.prefactor(0.0, n=8, beta=1.0)), rel=1e-12
    )


LATE = {"post": 60.0, "ngpt": 900.0, "sqrt": 900.0, "ln-scaling": 1e12}


@pytest.mark.parametrize("scheme", normalization.EXPONENTS)
def test_course_ends_on_the_terminal_law(scheme):
    """r = t + O(log t) leaves O(log t / t) to power laws: 1e-5 at 1e7 (ln-scaling: sqrt(t) for t)."""
    kw = {"n": 8, "beta": 1.0} | options(scheme)
    t = LATE.get(scheme, 1e7)
    got = normalization.course(scheme, [0, t], 0.9, **kw).gap[1]
    law = float(normalization.terminal_gap(scheme, t, 0.1, **kw))
    assert got == pytest.approx(law, rel=1e-5 if t >= 1e7 else 1e-9, abs=0)


@pytest.mark.parametrize("scheme", normalization.EXPONENTS)
def test_exponents_fitted_from_courses(scheme):
    kw = {"n": 8, "beta": 1.0} | options(scheme)
    ts = np.append(0.0, np.geomspace(0.5, 1, 9) * LATE.get(scheme, 1e7))
    gap = normalization.course(scheme, ts, **kw).gap[1:]
    clock = normalization.terminal_clock(scheme, ts[1:], alpha=kw["alpha"])
    slope = np.polyfit(clock - clock[0], np.log(gap / gap[0]), 1)[0]
    assert slope == pytest.approx(normalization.EXPONENTS[scheme], rel=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_depth_budget_counts_layers(scheme):
    kw = {"n": 16, "beta": 1.0, "rho0": 0.1, "eta": 0.5} | options(scheme)
    budget = normalization.depth_budget(scheme, rho_max=0.9, **kw)
    del kw["rho0"]
    gap = normalization.layer_course(scheme, 0.9, layers=int(budget), **kw).gap
    assert gap[-1] <= 0.1 * (1 + 1e-15) < gap[-2]


@pytest.mark.parametrize(
    ("scheme", "beta"),
    [("post", 9.0), ("pre", 4.9), ("mix", 5.6), ("peri", 4.9), ("ngpt", 9.0), ("sqrt", 6.5),
     ("ln-scaling", 2.5), ("none", 1.4)],
)  # fmt: skip
def test_increments_take_over_where_layers_are_too_many(scheme, beta):
    """An increment is an Euler step of the rate: a few layers are lost, or half of one in 100 where r grows like l."""
    kw = options(scheme, tau=10.0) | {"alpha": 0.5}
    count = lambda most: normalization.depth_budget(
        scheme, 16, beta, 0.99, radius=1.0, max_layers=most, **kw
    )
    exact = count(10_000)
    if scheme == "none":
        assert exact == count(100) == np.inf
        return
    assert 150 < exact < 10_000
    assert abs(count(100) - exact) <= 6 + exact / 200


@pytest.mark.parametrize(
    ("scheme", "beta"), [("pre", 13.34308322577895), ("peri", 13.4), ("ln-scaling", 14.0)]
)
def test_budgets_of_astronomical_depth_agree_with_the_flow(scheme, beta):
    """Layers are the flow but for the first few: a factor of the count, 1.6 to 1.8 where layers can be iterated."""
    layers = normalization.depth_budget(scheme, 1024, beta, 0.9, rho0=0.1, max_layers=300)
    ts = [0, layers / 3, layers, 3 * layers]
    gap = normalization.course(scheme, ts, 0.9, n=1024, beta=beta).gap
    assert layers > 1e15
    assert gap[3] < 0.1 < gap[1]


def test_depth_budget_at_the_ends():
    budget = normalization.depth_budget
    assert budget("post", 8, 1.0, 0.5, rho0=0.6) == 0
    assert budget("post", 8, 1.0, 0.5, rho0=-1 / 7) == np.inf
    # The wait of the flow is e^(beta g)/(2 beta) at large beta, and layers of step 1 take it twice.
    wait = equiangular.gap_time(0.01, 1.0, n=1024, beta=200.0)
    assert budget("post", 1024, 200.0, 0.99) == pytest.approx(2 * wait, rel=1e-6)
    assert np.isinf(budget("post", 1024, 400.0, 0.99))


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.layer_step("post", 0.1, n=4, beta=1.0, eta=-1.0), "`eta` must be"),
        (lambda f: f.layer_step("post", -0.5, n=4, beta=1.0), "No 4 vectors have common cosine"),
        (lambda f: f.layer_step("post", 0.5, n=1, beta=1.0), "`n` must be"),
        (lambda f: f.layer_step("pots", 0.5, n=4, beta=1.0), "Did you mean 'post'"),
        (lambda f: f.layer_step("pre", 0.5, n=4, beta=1.0, radius=0.0), "`radius` must be"),
        (lambda f: f.layer_step("mix", 0.5, n=4, beta=1.0, tau=-1.0), "`tau` must be"),
        (lambda f: f.layer_course("post", layers=0, n=4, beta=1.0), "`layers` must be"),
        (
            lambda f: f.layer_course("mix", layers=5, tau=5.0, n=4, beta=1.0),
            "`tau` must lie within the run, from 0 to before 5, but tau=5",
        ),
        (lambda f: f.course("mix", [0, 3.0], n=4, beta=1.0, tau=4.0), "`tau` must lie within"),
        (lambda f: f.course("pre", [0, 3.0], n=4, beta=1.0, radius=-1.0), "`radius` must be"),
        (lambda f: f.course("pre", [0, 3.0], 1.5, n=4, beta=1.0), "`gap0` must lie"),
        (lambda f: f.course("ngpt", [0, 3.0], n=4, beta=1.0, alpha=-0.1), "`alpha` must be"),
        (
            lambda f: f.course("ngpt", [0, 3.0], n=4, beta=1.0, alpha=lambda t: 1 - t),
            "must be finite and >= 0.*Negative rates repel",
        ),
        (lambda f: f.speed("post", 1.2, n=4, beta=1.0), "`rho` must lie"),
        (lambda f: f.speed_factor("post", 0.2, n=4, beta=np.inf), "`beta` must be finite"),
        (lambda f: f.terminal_constant("none", n=4, beta=1.0), "`scheme` must be one of"),
        (lambda f: f.terminal_constant("post", 1.0, n=4, beta=1.0), "`rho0` must lie strictly"),
        (lambda f: f.orbit_radius(0.0, n=4, beta=1.0), "`gap` must lie strictly"),
        (lambda f: f.depth_budget("post", 4, 1.0, 1.0), "`rho_max` must lie below 1"),
        (lambda f: f.phase_curve_post_ln(np.nan, n=4, eta=1.0), "`beta` must be"),
        (lambda f: f.phase_curve_post_ln(1.0, n=4, eta=0.0), "`eta` must be"),
        (lambda f: f.phase_curve_post_ln(1.0, n=4, eta=1.0, delta=0.0), "`delta`"),
    ],
)
def test_bad_input(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call(normalization)
