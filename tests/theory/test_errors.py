"""Odd input of the oracles gets one sentence, and their formulas reach as far as floats do."""

import numpy as np
import pytest

from attnflow import theory
from attnflow.theory import errors


@pytest.mark.parametrize(
    "value", ["1", "many", {}, 1j, 10**400, [[1.0], [2.0, 3.0]], np.array([["1"], ["2"]])]
)
def test_what_is_no_number_is_refused_in_one_line(value, untyped):
    with pytest.raises(ValueError, match="Argument `x` must be a number, but x=") as caught:
        errors.check_positive(value, "x")
    assert "\n" not in str(caught.value)


def test_one_number_is_no_list(untyped):
    assert errors.one(errors.check_between, 0.5, "x", 0, 1) == 0.5
    with pytest.raises(ValueError, match=r"Argument `x` must be one number, but x\.shape=\(1,\)"):
        errors.one(errors.check_finite, [1.0], "x")


FOUND = {
    "betas": (lambda: theory.rates.circle_criterion([1.0]), "`beta` must be one number"),
    "numbers of tokens": (lambda: theory.modes.line_mode_band([], 2.0), "`n` must be one number"),
    "tokens of a circle": (lambda: theory.metastability.renyi_count(0.1, n=[]), "`n` must be one number"),
    "half a cluster": (
        lambda: theory.metastability.plateau_energies([[0.5, 1]], [0.2, 0.3, 0.5]), "pairs of clusters",
    ),
    "one cluster": (lambda: theory.metastability.plateau_energies([1], [0.5, 0.5]), "pairs of clusters"),
    "a cluster that is none": (
        lambda: theory.metastability.plateau_energies([[0, 1e300]], [0.5, 0.5]), "made before",
    ),
    "groups": (lambda: theory.stationary.triangle_group_rates([1.0]), "`beta` must be one number"),
    "laws": (
        lambda: theory.normalization.terminal_constant("pre", n=4, beta=[1.0]), "`beta` must be one number",
    ),
    "a series of 1e16 terms": (
        lambda: theory.long_context.row_entropy(1e16, n=8, d=3), "`beta` must lie in",
    ),
    "modes beyond memory": (
        lambda: theory.stationary.polygon_rate_bessel(1, n=8, beta=1e16), r"Take `polygon_rate`\.",
    ),
    "degrees beyond memory": (lambda: theory.stability.fastest_mode(1e20, d=3), "`beta` must lie in"),
    "values": (lambda: theory.clustering.theorems("sa", 1.0, np.eye(3), value=[1.0]), "`value` must be one"),
    "layers of many betas": (
        lambda: theory.normalization.layer_course("post", layers=2, n=4, beta=[1.0]), "`beta` must be one number",
    ),
    "many rates": (
        lambda: theory.normalization.layer_course("ngpt", layers=2, n=4, beta=1.0, alpha=[]), "`alpha` must be one",
    ),
    "an orbit beyond floats": (
        lambda: theory.normalization.orbit_radius(0.5, 0.5, n=4, beta=1e8), "satisfy beta gap <= 700",
    ),
    "panels beyond memory": (
        lambda: theory.normalization.cosine("sqrt", [0.0, 1.0], 0.5, n=9, beta=1e16), "costs O",
    ),
    "many points": (
        lambda: theory.metastability.pairing_flow(1.0, np.eye(2), np.eye(2)), "`x` must be one unit vector",
    ),
    "starts": (lambda: theory.equiangular.cosine_sa([0.0, 1.0], [], n=4, beta=1.0), "`rho0` must be one number"),
    "starts without beta": (
        lambda: theory.equiangular.cosine_kuramoto([0.0, 1.0], [0.1, 0.2], n=4), "`rho0` must be one number",
    ),
    "centers nowhere": (lambda: theory.metastability.cap_cosine([0.0, np.inf], 0.1), "`x` must be finite"),
    "ragged masses": (
        lambda: theory.metastability.plateau_energies([[0, 1]], [[0.5], [0.1, 0.4]]), "`weights` must be a number",
    ),
    "variances": (
        lambda: theory.shared_weights.shared_weights_cosine("pre", [0.0, 1.0], n=4, variance=[1.0, 2.0]),
        "`variance` must be one number",
    ),
    "points of two spaces": (
        lambda: theory.metastability.pairing_flow(1.0, [1.0, 0.0], [1.0, 0.0, 0.0]), r"`y` must have shape \(2,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_what_fuzzing_found_is_a_sentence(case, untyped):
    call, part = FOUND[case]
    with pytest.raises(ValueError, match=part):
        call()


def test_expected_modes_reach_as_far_as_floats():
    beta = np.array([1e-320, 1e10, 1e300])
    np.testing.assert_allclose(
        theory.modes.expected_circle_modes(beta), [1.0, *np.sqrt(1.5 * beta[1:])], rtol=1e-9
    )
    low, high = theory.modes.expected_circle_modes([5e5 * (1 - 1e-12), 5e5 * (1 + 1e-12)])
    assert abs(high / low - 1) < 1e-11  # two formulas meet


def test_a_vanishing_lead_keeps_its_factor():
    factor = lambda lead: theory.logit_rules.keep_cosine(39, n0=1090, lead=lead, rho=0.25)
    assert abs(factor(1e-208) / factor(1e-6) - 1) < 1e-4


def test_collapse_times_of_nothing_are_none(untyped):
    assert theory.metastability.collapse_time([], beta=1.5).shape == (0,)


def test_disorder_has_no_order():
    assert theory.gibbs.order_parameter(26.746751079612256, 0.5) == 0.0


def test_energies_and_cosines_reach_as_far_as_floats():
    assert theory.stationary.uniform_energy(1e17, d=8) == np.inf
    far, near = (theory.long_context.limit_cosine(0.5, 4.0, eta=eta) for eta in (1e156, 1e12))
    np.testing.assert_allclose(far, near, rtol=1e-10)


def test_three_groups_far_on_either_side():
    between, inside = theory.stationary.triangle_group_rates(-5e6)
    exact = [1.125 * -5e6 + 0.75, 0.75 * -5e6 + 0.5]  # e^beta is nothing beside e^(-beta/2)
    np.testing.assert_allclose([between, inside], exact, rtol=1e-14)
    np.testing.assert_allclose(theory.stationary.triangle_group_rates(5e6), [0.0, -1.0], atol=1e-12)


def test_noise_beyond_order_leaves_uniform_tokens():
    np.testing.assert_allclose(theory.kuramoto.noisy_mean_square(26, 1e-308), 1 / 26, rtol=1e-15)


def test_limit_directions_do_not_depend_on_the_size_of_values():
    value = np.diag([1.0, -2.0, 0.5])
    for size in (1.0, 1e307):
        found = theory.large_beta.limit_directions(value=size * value, d=3)
        np.testing.assert_allclose(np.abs(found.ravel()), [1, 0, 0], atol=1e-12)


def test_rows_that_attend_to_all_have_entropy_log_n():
    assert theory.long_context.row_entropy(5e-324, n=8, d=6) == np.log(8)


def test_free_energy_has_its_limits():
    free = theory.gibbs.free_energy
    np.testing.assert_allclose(free(1e-124, 4.08, d=3), free(0.0, 4.08, d=3), rtol=1e-12)
    assert free(3.3, 1e-109) == 0.0
