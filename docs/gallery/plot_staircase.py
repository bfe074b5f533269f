r"""
Staircase: energy over exponentially long time
==============================================

How long do clusters last, and in which order do they merge? ``coalesce`` keeps time as a
logarithm, and runs 48 tokens on the circle at :math:`\beta = 100` until one cluster is left.
"""

import jax

from attnflow.experiments import staircase

jax.config.update("jax_enable_x64", True)

data = staircase.run(staircase.Config(n=48, beta=100.0))
figure = staircase.draw(data)

# %%
# The energy is a staircase: flat while clusters wait, with a jump at each merge. The greedy rule,
# by which the closest pair merges next and the wait is that of two clusters alone (Geshkovski,
# Koubbi, Polyanskiy, Rigollet, *Dynamic metastability in the self-attention model*, 2024), is in
# the columns "predicted". Time is in decades.

print(staircase.summary(data))
