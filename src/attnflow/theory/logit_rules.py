r"""Rules for the logits of a longer context, side by side, and the one that keeps the cosine of outputs.

A rule is a factor of the logits as a function of the number n of tokens; 1 at the training length n0, but for `ssmax`.
"""

import numpy as np

from attnflow.theory.equiangular_layer import check_size, weights
from attnflow.theory.errors import Numbers, check, check_finite, check_nonnegative, check_positive


def ssmax(n: Numbers, *, s: Numbers) -> np.ndarray:
    r"""Factor of scalable softmax, $s\log n$: weights $n^{sz_j}/\sum_kn^{sz_k}$ of logits z.

    Beside a model trained at n0 with factor 1, $s = 1/\log n_0$, and it is `log_n`.

    Args:
        n: Number of keys, >= 2, any shape.
        s: Learned number of a head, finite; broadcasts.

    Returns:
        Factor, the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Nakanishi, "Scalable-Softmax is superior for attention" (2025), arXiv:2501.19399, Eq. (2).
    """
    return np.asarray(check_finite(s, "s") * np.log(check_size(n)))


def log_n(n: Numbers, *, n0: Numbers) -> np.ndarray:
    r"""Factor of log-n scaling, $\log n/\log n_0$: $\gamma$ of $\beta = \gamma\log n$ stays.

    Some models clip it at 1 below n0.

    Args:
        n: Number of keys, >= 2, any shape.
        n0: Number of keys in training, >= 2; broadcasts.

    Returns:
        Factor, the broadcast shape, > 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Chiang, Cholak, "Overcoming a theoretical limitation of self-attention" (2022), Sec. 5.3; Su (2021).
    """
    return np.asarray(np.log(check_size(n)) / np.log(check_size(n0, "n0")))


def yarn(n: Numbers, *, n0: Numbers) -> np.ndarray:
    r"""Factor of YaRN, $(0.1\log(n/n_0)+1)^2$: queries and keys each take its root. 1 below n0.

    Args:
        n: Number of keys, >= 2, any shape.
        n0: Number of keys in training, >= 2; broadcasts.

    Returns:
        Factor, the broadcast shape, >= 1.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Peng, Quesnelle, Fan, Shippole, "YaRN: efficient context window extension of large language models" (2023),
        Eq. (22).
    """
    ratio = check_size(n) / check_size(n0, "n0")
    return np.asarray((0.1 * np.log(np.maximum(ratio, 1)) + 1) ** 2)


def llama4(n: Numbers, *, floor: Numbers = 8192, rate: Numbers = 0.1) -> np.ndarray:
    r"""Factor of Llama 4 for the last of n tokens, $1+0.1\log(\lfloor n/8192\rfloor+1)$.

    Its attention layers without rotary positions multiply each query by it, at its own position. It knows no n0.

    Args:
        n: Number of keys, >= 2, any shape.
        floor: Length of a step, > 0; broadcasts.
        rate: Factor of the logarithm, >= 0; broadcasts.

    Returns:
        Factor, the broadcast shape, >= 1.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Released code of Llama 4 (2025), temperature tuning; after `log_n` and `ssmax`.
    """
    steps = np.floor(check_size(n) / check_positive(floor, "floor"))
    return np.asarray(1 + check_nonnegative(rate, "rate") * np.log1p(steps))


def lead_of_participation(participation: Numbers, *, n: Numbers) -> np.ndarray:
    r"""Lead $\lambda = \beta(1-\rho)$ of the equiangular row with a given participation $1/\sum_jA_{ij}^2$.

    One key of n has the logit $\lambda$ above all others, so $\sum_jA_{ij}^2 = \Delta^2+(1-\Delta^2)/n$ with
    $\Delta = (e^\lambda-1)/(e^\lambda+n-1)$, inverted. Of values with equal lengths and cosines, the length of an
    output depends on the row through this sum alone, whichever keys the weight is on.

    Args:
        participation: Number of keys that share the weight, from 1 to n, any shape.
        n: Number of keys, >= 2; broadcasts.

    Returns:
        Lead, the broadcast shape, >= 0; inf where one key has all the weight.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived: a row of equal weights but one.
    """
    n, shared = np.broadcast_arrays(check_size(n), check_finite(participation, "participation"))
    check((shared >= 1) & (shared <= n), "participation", "lie in [1, n]", shared)
    rest = n * (shared - 1) / ((n - 1) * shared)  # 1 - Delta^2, without cancellation
    delta = np.sqrt((n - shared) / ((n - 1) * shared))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log1p(n * delta * (1 + delta) / rest))


def keep_cosine(n: Numbers, *, n0: Numbers, lead: Numbers, rho: Numbers) -> np.ndarray:
    r"""Factor that keeps the output cosine of n0 equiangular tokens when they are n.

    `long_context.scale_for_cosine` at the cosine of n0 tokens, over their beta. The cosine depends on
    $\frac{\Delta^2}{(1-\Delta^2)m}$ alone, with $\Delta = \frac{E-1}{E+n-1}$, $E = e^\lambda$ and
    $m = \rho+\frac{1-\rho}n$, so E is solved for exactly, and no digit is lost near collapse. Far from 0 and infinity,
    $s \approx 1+\frac1\lambda\log\frac n{n_0}$: `log_n` where $\lambda = \log n_0$, which is the critical scale, more
    below it, less above. As $\lambda\to0$ it is $\frac n{n_0}$ at most.

    Args:
        n: Number of tokens, >= 2, any shape.
        n0: Number of tokens in training, >= 2; broadcasts.
        lead: Logit of a token with itself minus with another, $\lambda = \beta(1-\rho)$, > 0; broadcasts.
        rho: Common cosine, in [0, 1]; broadcasts.

    Returns:
        Factor s, the broadcast shape, > 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived from `long_context.output_gap`; its limit is in Chen, Lin, Polyanskiy, Rigollet, "Critical attention
        scaling in long-context transformers" (2025).
    """
    n, n0, lead = check_size(n), check_size(n0, "n0"), check_positive(lead, "lead")
    rho = check_finite(rho, "rho")
    check((rho >= 0) & (rho <= 1), "rho", "lie in [0, 1]", rho)
    _, _, delta = weights(lead, n0)
    log_rest = np.log(n0) - np.logaddexp(lead, np.log(n0 - 1))  # of 1 - Delta
    log_odds = 2 * np.log(delta) - log_rest - np.log1p(delta)
    log_odds = log_odds + np.log((rho + (1 - rho) / n) / (rho + (1 - rho) / n0))
    log_delta = -np.logaddexp(0, -log_odds) / 2
    away = np.log(n) + log_delta + np.log1p(np.exp(log_delta)) + np.logaddexp(0, log_odds)
    return np.asarray(np.logaddexp(0, away) / lead)
