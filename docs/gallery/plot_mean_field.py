r"""
Mean field: many tokens beside their density
============================================

When is a cloud of tokens the same as a density? The law of :math:`n` independent tokens follows a
continuity equation as :math:`n` grows, and their distance to it should shrink like
:math:`n^{-1/2}`.
"""

import jax

from attnflow.experiments import mean_field

jax.config.update("jax_enable_x64", True)

data = mean_field.run(
    mean_field.Config(beta=4.0, n_min=50, n_max=1600, n_count=3, starts=4, sphere_degree=0)
)
figure = mean_field.draw(data)

# %%
# Right are the errors over :math:`n` in Wasserstein distance and in Fourier modes. Left the
# density itself starts almost uniform, with random modes of height :math:`10^{-6}`; these grow at
# their linear rates until clusters stand. The defaults of the experiment go to a million tokens
# and add the sphere; this is a small run.

print(mean_field.summary(data))
