r"""
Long context: the transition at beta = gamma log n
==================================================

How must the logits grow with the context? At :math:`\beta = \gamma\log n`, tokens of common
cosine :math:`\rho` collapse in one layer below :math:`\gamma_c = 1/(1 - \rho)`, and stay as they
are above (Rigollet, *The mean-field dynamics of Transformers*, 2025, Thm 6).
"""

import jax

from attnflow.experiments import long_context

jax.config.update("jax_enable_x64", True)

data = long_context.run(
    long_context.Config(
        ns=(2**8, 2**14),
        layer_ns=(2**6, 2**8),
        layer_count=9,
        resolution=61,
        random_n=2**9,
        seeds=2,
        escape_ns=(2**10, 2**16),
        layers=200,
    )
)
figure = long_context.draw(data)

# %%
# The planes are the exact output cosine :math:`C_n(\rho, \gamma)` at finite :math:`n`, with the
# limit's jump as a line; dots are real layers on equal cosines. Random tokens need not have equal
# cosines, and stand beside both predictions. Above :math:`\gamma_c` a stack of layers drifts, and
# escapes the later the larger :math:`n` and :math:`\gamma`.

print(long_context.summary(data))
