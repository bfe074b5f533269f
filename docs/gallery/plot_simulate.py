r"""
Simulate: tokens from any start under any flow
==============================================

Where do 64 tokens on the sphere go under self-attention, and what does theory promise for this
very start? They follow :math:`\dot x_i = P_{x_i} \sum_j \mathrm{softmax}_j(\beta\langle x_i,
x_j\rangle)\, x_j`.
"""

import jax

from attnflow.experiments import simulate

jax.config.update("jax_enable_x64", True)

data = simulate.run(simulate.Config(n=64, d=3, beta=9.0, t_max=300.0, saves=33))
figure = simulate.draw(data)

# %%
# Clusters form within the first time units and then hardly move: a plateau. The energy (here as a
# share of its value at consensus) rises all along, as the flow is its gradient ascent in a metric
# of its own. The table ends with the theorems whose hypotheses hold for this start: from almost
# every start all tokens become one, in a time that may grow exponentially with :math:`\beta`, so
# that a run to :math:`t = 300` need not see it.

print(simulate.summary(data))
