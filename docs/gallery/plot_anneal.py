r"""
Anneal: noise prevents, delays or speeds collapse
=================================================

Does noise only slow the collapse of attention? A map over noise :math:`1/\kappa` and
:math:`\beta`: late order on the one side, time to collapse on the other.
"""

import jax

from attnflow.experiments import anneal

jax.config.update("jax_enable_x64", True)

data = anneal.run(anneal.Config(n=32, beta_count=5, kappa_count=6, seeds=3, t_max=40.0))
figure = anneal.draw(data)

# %%
# To the left of the threshold :math:`\kappa_c(\beta)`, at which the uniform density loses
# stability, tokens stay spread. The last column is the run without noise. For the larger
# :math:`\beta` it never collapses in this time, and some of the noisy runs do: noise frees tokens
# from plateaus. Three starts only.

print(anneal.summary(data))
