r"""
Kuramoto: three exact theories at beta = 0
==========================================

What is left of attention at :math:`\beta = 0`? Each token moves towards the mean: identical
Kuramoto oscillators, for which order, motion and noise all have exact theories.
"""

import jax

from attnflow.experiments import kuramoto

jax.config.update("jax_enable_x64", True)

data = kuramoto.run(kuramoto.Config(n=64, ring=8, kappa_count=6, noisy_n=32, noisy_t=20.0, seeds=8))
figure = kuramoto.draw(data)

# %%
# Left, the order parameter beside the Ott-Antonsen equation. Middle, cross ratios of tokens:
# constants of motion at :math:`\beta = 0` (Watanabe and Strogatz, 1994), and no longer at
# :math:`\beta = 1`. Right, order under noise beside the exact mean square of its Gibbs measure,
# at the finite number of tokens that were run.

print(kuramoto.summary(data))
