r"""
Phase diagram: one cluster, over time and beta
==============================================

When are tokens one cluster? The share of merged pairs over time and :math:`\beta`, in two
dimensions :math:`d`. Orthogonal tokens stay equiangular, and their common cosine solves one
ordinary differential equation: a curve on the map (Geshkovski, Letrouit, Polyanskiy, Rigollet, *A
mathematical perspective on Transformers*, 2025, Sec. 6).
"""

import jax

from attnflow.experiments import phase_diagram

jax.config.update("jax_enable_x64", True)

data = phase_diagram.run(
    phase_diagram.Config(n=16, dims=(8, 128), beta_count=9, seeds=8, time_count=60)
)
figure = phase_diagram.draw(data)

# %%
# Uniform tokens are nearly orthogonal in high dimension, and there the transition lies on the
# curve; in :math:`d = 8` it does not.

print(phase_diagram.summary(data))
