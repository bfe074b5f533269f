r"""Clustering theorems: which of them apply to given tokens, what they promise, and how fast.

Hypotheses are checked from the numbers. A theorem whose hypotheses cannot be checked does not apply, and says why.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from attnflow.theory.errors import Number, check_choice, check_finite, numbers, one
from attnflow.theory.hemisphere import Hemisphere, check_tokens, hemisphere
from attnflow.theory.rates import MODELS as RATE_MODELS
from attnflow.theory.rates import consensus_rate
from attnflow.theory.stationary import TRIANGLE_THRESHOLD, triangle_group_rates

MODELS = ("sa", "usa", "causal", "hardmax", "sinkhorn")
CIRCLE_BETA = -0.16
"""Smallest inverse temperature of the published theorem on the circle; not sharp."""
ROUNDING = 1e-12
PAIRS = 2**22
"""Pairs of tokens that are looked at together."""


@dataclass(frozen=True)
class Theorem:
    """One statement, and whether these tokens satisfy its hypotheses."""

    name: str
    """Short name, the same for every start."""
    applies: bool
    """Whether every hypothesis holds."""
    reason: str
    """Hypotheses with their numbers: those that fail if any, else all."""
    promise: str
    """What the theorem says, one sentence."""
    rate: float | None
    """Rate per unit time of the promise; None if the theorem gives none."""
    source: str
    """Where it is proved."""
    status: str
    """"quoted" from the source, or "verified" here by independent computation."""


@dataclass(frozen=True, eq=False)
class _Case:
    """A start and what was measured on it."""

    model: str
    beta: float
    value: float
    n: int
    d: int
    rank: int
    order: float
    moves: bool
    gathered: bool
    cap: Hemisphere

    @property
    def sphere(self) -> int:
        """Dimension of the space in which these tokens are generic: their span is invariant."""
        return self.d if self.rank == min(self.n, self.d) else self.rank

    def needs(self, *models: str) -> tuple[bool, str]:
        """Hypothesis on the model."""
        return self.model in models, f"model in {', '.join(models)} (model = {self.model})"

    def attracts(self) -> tuple[bool, str]:
        """Hypothesis on the value matrix."""
        return self.value > 0, f"V = c I with c > 0 (c = {self.value:g})"

    def above(self, low: float, *, strict: bool = False) -> tuple[bool, str]:
        """Hypothesis on beta."""
        ok = self.beta > low if strict else self.beta >= low
        return ok, f"beta {'>' if strict else '>='} {low:.3g} (beta = {self.beta:g})"

    def generic(self) -> tuple[bool, str]:
        """Hypothesis of an almost-everywhere statement: not already stuck elsewhere."""
        state = "some token moves" if self.moves else "no token moves"
        state = "already one point" if self.gathered else state
        return self.moves or self.gathered, f"a start that is not stationary ({state})"


def theorems(model: str, beta: Number, tokens: ArrayLike, *, value: Number = 1.0) -> list[Theorem]:
    """Clustering theorems on these tokens, those that apply first.

    Tokens that span fewer dimensions than they could stay in their span, so the statements are read there.
    About 0.3 s for n = 1797, d = 64, 4 s for n = 10^6, d = 3; O(n^2 d) only if no token moves.

    Args:
        model: "sa", "usa", "causal" (SA with a causal mask), "hardmax" or "sinkhorn". Q = K = I.
        beta: Inverse temperature, any sign; inf only for "hardmax".
        tokens: Unit vectors, shape (n, d), d >= 2.
        value: Scalar value matrix V = value * I.

    Returns:
        One `Theorem` per known statement, ten in all.

    Raises:
        ValueError: If an argument is out of range or the model is unknown.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Secs. 4.1-4.2, and the source of each entry.
    """
    check_choice(model, "model", MODELS)
    beta, value = one(numbers, beta, "beta"), one(check_finite, value, "value")
    if not (model == "hardmax" and beta == np.inf):
        check_finite(beta, "beta")
    x = check_tokens(tokens)
    n, d = x.shape
    case = _Case(
        model=model,
        beta=float(beta),
        value=float(value),
        n=n,
        d=d,
        rank=int(np.linalg.matrix_rank(x)),
        order=float(np.linalg.norm(x.mean(axis=0))),
        moves=model not in RATE_MODELS or _any_moves(x, float(beta), causal=model == "causal"),
        gathered=bool(np.abs(x - x[0]).max() < 1e-14),
        cap=hemisphere(x),
    )
    entries = [statement(case) for statement in STATEMENTS]
    return sorted(entries, key=lambda entry: not entry.applies)


def _gathered(case: _Case) -> Theorem:
    return _entry(
        "already one point",
        [(case.gathered, f"all tokens equal (order parameter = {case.order:.6g})")],
        "Consensus is stationary: nothing moves.",
        None,
        "elementary",
        "verified",
    )


def _sphere(case: _Case) -> Theorem:
    dimension = f"d >= 3 (d = {case.d}, the tokens span {case.rank} dimensions)"
    return _entry(
        "sphere, almost every start",
        [
            case.needs("sa", "usa"),
            case.attracts(),
            (case.n >= 2, f"n >= 2 (n = {case.n})"),
            (case.sphere >= 3, dimension),
            case.above(0.0),
            case.generic(),
        ],
        "All tokens converge to one point from almost every start, in a time that may grow like e^(c beta).",
        None,
        "Markdahl, Thunberg, Goncalves (2018); Criscitiello, Rebjock, McRae, Boumal (2024); "
        "Rigollet (2025), Thm 1",
        "quoted",
    )


def _circle(case: _Case) -> Theorem:
    dimension = f"d = 2 (d = {case.d}, the tokens span {case.rank} dimensions)"
    return _entry(
        "circle, almost every start",
        [
            case.needs("sa", "usa"),
            case.attracts(),
            (case.n >= 2, f"n >= 2 (n = {case.n})"),
            (case.sphere == 2, dimension),
            case.above(CIRCLE_BETA),
            case.generic(),
        ],
        "All tokens converge to one point from almost every start, in a time that may grow like e^(c beta).",
        None,
        "Polyanskiy, Rigollet, Yao, Synchronization of mean-field models on the circle (2025)",
        "quoted",
    )


def _extreme_beta(case: _Case) -> Theorem:
    bounds = f"beta = {case.beta:g}, 1/n = {1 / case.n:.3g}, n^2 = {case.n**2}"
    return _entry(
        "small or large beta",
        [
            case.needs("sa", "usa"),
            case.attracts(),
            (
                case.beta == 0,
                "beta <= c/n or beta >= C(d) n^2, constants not explicit, so only beta = 0 is certain "
                f"({bounds})",
            ),
            case.generic(),
        ],
        "All tokens converge to one point from almost every start, in every dimension d >= 2.",
        None,
        "Geshkovski, Letrouit, Polyanskiy, Rigollet, A mathematical perspective on Transformers (2023)",
        "quoted",
    )


def _open_hemisphere(case: _Case) -> Theorem:
    margin = f"margin = {case.cap.margin:.3g}, at most {case.cap.bound:.3g}"
    return _entry(
        "open hemisphere",
        [
            case.needs("sa", "usa"),
            case.attracts(),
            case.above(0.0, strict=True),
            (case.cap.exists, f"some w has <x_i, w> > 0 for all i ({margin})"),
        ],
        "All tokens converge to one point exponentially; the rate is the sharp one at consensus.",
        _rate(case, "sa", "usa"),
        "Geshkovski, Letrouit, Polyanskiy, Rigollet (2023); Rigollet (2025), Thm 2; rate by linearization",
        "quoted",
    )


def _independent(case: _Case) -> Theorem:
    return _entry(
        "no more tokens than dimensions",
        [
            case.needs("sa", "usa"),
            case.attracts(),
            case.above(0.0, strict=True),
            (case.d >= case.n, f"d >= n (d = {case.d}, n = {case.n})"),
            (case.rank == case.n, f"independent tokens (rank = {case.rank} of n = {case.n})"),
        ],
        "Independent tokens, as iid uniform ones are almost surely, share an open hemisphere, hence converge to "
        "one point exponentially.",
        _rate(case, "sa", "usa"),
        "Rigollet (2025), corollary of Thm 2; rate by linearization",
        "quoted",
    )


def _causal(case: _Case) -> Theorem:
    return _entry(
        "causal mask, almost every start",
        [case.needs("causal"), case.attracts(), case.above(0.0), case.generic()],
        "Every token converges to the first, which never moves, from almost every start.",
        None,
        "Karagodin, Polyanskiy, Rigollet, Clustering in causal attention masking (2024)",
        "quoted",
    )


def _mean_field(case: _Case) -> Theorem:
    return _entry(
        "mean field with a density",
        [
            case.needs("usa"),
            case.attracts(),
            (False, f"an initial density in L^2 (these tokens are {case.n} point masses)"),
            (case.order > ROUNDING, f"nonzero mean (R0 = |mean|^2 = {case.order**2:.3g})"),
            (False, f"|beta| < beta0(mu0), which is not explicit (beta = {case.beta:g})"),
        ],
        "W2(mu_t, a point) <= C0 e^(-t/100) once t >= T0: a statement on densities, never on finitely many tokens.",
        0.01,
        "Chen, Lin, Polyanskiy, Rigollet, Quantitative clustering in mean-field transformer models (2025); "
        "Rigollet (2025), Thm 3",
        "quoted",
    )


def _ring(case: _Case) -> Theorem:
    model = case.model if case.model in ("sa", "usa") else "usa"
    decay = -max(triangle_group_rates(min(case.beta, 0.0), model=model))
    below = case.beta < TRIANGLE_THRESHOLD
    return _entry(
        "stable ring of three",
        [
            case.needs("sa", "usa"),
            case.attracts(),
            (case.sphere == 2, f"d = 2 (d = {case.d}, the tokens span {case.rank} dimensions)"),
            (below, f"beta < -2/3 (beta = {case.beta:g})"),
            (case.n % 3 == 0, f"n divisible by 3 (n = {case.n})"),
        ],
        "Three equal groups at 120 degrees are stable: starts near them, a set of positive measure, never meet.",
        case.value * decay if below else None,
        "Polyanskiy, Rigollet, Yao (2025); spectrum of the regular polygon",
        "verified",
    )


def _local_rate(case: _Case) -> Theorem:
    return _entry(
        "rate at consensus",
        [
            case.needs("sa", "usa", "causal"),
            case.attracts(),
            (case.n >= 2, f"n >= 2 (n = {case.n})"),
        ],
        "If the tokens gather at one point, distances to it decay at this rate, 1 - cosine at twice it.",
        _rate(case, "sa", "usa", "causal"),
        "linearization at consensus",
        "verified",
    )


STATEMENTS = (
    _gathered,
    _open_hemisphere,
    _independent,
    _sphere,
    _circle,
    _extreme_beta,
    _causal,
    _ring,
    _local_rate,
    _mean_field,
)


def _entry(
    name: str,
    hypotheses: list[tuple[bool, str]],
    promise: str,
    rate: float | None,
    source: str,
    status: str,
) -> Theorem:
    """Theorem that applies if every hypothesis holds."""
    failed = [text for ok, text in hypotheses if not ok]
    reason = "; ".join(failed or [text for _, text in hypotheses])
    word = "fails" if failed else "holds"
    return Theorem(name, not failed, f"{word}: {reason}", promise, rate, source, status)


def _rate(case: _Case, *models: str) -> float | None:
    """Rate at consensus, where the statement covers the model."""
    if case.model not in models or case.value <= 0:
        return None
    return consensus_rate(case.model, case.beta, case.value)


def _any_moves(x: np.ndarray, beta: float, *, causal: bool) -> bool:
    """Whether some token has a velocity above rounding.

    Its strongest pull by another token is scaled to weight 1, so that beta >> 1 does not hide it.
    """
    size = max(1, min(256, PAIRS // len(x)))
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        cosine = rows @ x.T
        seen = cosine < 1 - 1e-14
        if causal:
            seen &= np.arange(len(x)) < np.arange(start, start + len(rows))[:, None]
        scores = np.where(seen, beta * cosine, -np.inf)
        top = scores.max(axis=1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
        velocity = weights @ x - (weights * cosine).sum(axis=1, keepdims=True) * rows
        if np.linalg.norm(velocity, axis=1).max() > 1e-9:
            return True
    return False
