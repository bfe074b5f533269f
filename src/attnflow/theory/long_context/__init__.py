r"""Attention over a long context, logits scaled by $\beta = \gamma\log n$, exactly at every n.

`one_layer`: the output cosine of equiangular tokens, its limits, critical window, inverses and Jacobian. `escape`: many
layers. `uniform_keys`: random tokens.
"""

from attnflow.theory.long_context.escape import (
    cosines,
    escape_estimate,
    gaps,
    layers_to_escape,
)
from attnflow.theory.long_context.one_layer import (
    SelfJacobian,
    critical_gamma,
    critical_window,
    gamma_for_cosine,
    limit_correction,
    limit_cosine,
    logit_scale,
    output_cosine,
    output_gap,
    output_norm,
    scale_for_cosine,
    self_jacobian,
)
from attnflow.theory.long_context.uniform_keys import (
    NearEquiangular,
    log_partition,
    near_equiangular,
    output_length,
    participation_ratio,
    random_energy_threshold,
    row_entropy,
    selectivity_scale,
)

__all__ = [
    "NearEquiangular",
    "SelfJacobian",
    "cosines",
    "critical_gamma",
    "critical_window",
    "escape_estimate",
    "gamma_for_cosine",
    "gaps",
    "layers_to_escape",
    "limit_correction",
    "limit_cosine",
    "log_partition",
    "logit_scale",
    "near_equiangular",
    "output_cosine",
    "output_gap",
    "output_length",
    "output_norm",
    "participation_ratio",
    "random_energy_threshold",
    "row_entropy",
    "scale_for_cosine",
    "selectivity_scale",
    "self_jacobian",
]
