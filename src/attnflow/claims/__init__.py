"""Claims: what theory predicts beside what the simulator does. `attnflow verify` checks them all."""

from attnflow.claims import (
    causal,
    clustering,
    equiangular,
    gaussian,
    gradient,
    gram,
    kuramoto,
    large_beta,
    limits,
    logit_rules,
    long_context,
    many_tokens,
    mean_field,
    metastability,
    modes,
    noisy,
    noisy_tokens,
    normalization,
    phase,
    random_weights,
    rates,
    stability,
    staircase,
    stationary,
    symmetry,
    uniform_keys,
)
from attnflow.claims.claim import Claim, Verdict, evaluate, table, to_json

SUBJECTS = (
    equiangular, phase, gram, kuramoto, stationary, gradient, symmetry, rates, causal, clustering, limits,
    metastability, staircase, stability, modes, normalization, long_context, uniform_keys, logit_rules,
    random_weights, many_tokens, mean_field, gaussian, large_beta, noisy, noisy_tokens,
)  # fmt: skip
CLAIMS = {claim.name: claim for subject in SUBJECTS for claim in subject.CLAIMS}

__all__ = ["CLAIMS", "Claim", "Verdict", "evaluate", "table", "to_json"]
