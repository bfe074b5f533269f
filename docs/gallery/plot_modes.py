r"""
Modes: how many clusters appear first
=====================================

How many clusters has the first plateau? On the circle, uniform tokens have about as many as a
kernel density estimate of bandwidth :math:`\beta^{-1/2}` has hills, :math:`O(\sqrt\beta)`
(Geshkovski, Rigollet, Sun, *On the number of modes of Gaussian kernel density estimators*, 2024).
"""

import jax

from attnflow.experiments import modes

jax.config.update("jax_enable_x64", True)

data = modes.run(modes.Config(n=128, beta_min=4.0, beta_max=100.0, beta_count=4, seeds=4))
figure = modes.draw(data)

# %%
# Three counts stand side by side: clusters of the simulation, hills of the density of its start
# with their expected number, and the fastest growing mode of the linearised mean-field equation.
# All grow like :math:`\sqrt\beta`, with prefactors of their own; four starts leave wide
# intervals.

print(modes.summary(data))
