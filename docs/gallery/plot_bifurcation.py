r"""
Bifurcation: order appears as noise fades
=========================================

How much noise keeps tokens apart? With :math:`\sqrt{2/\kappa}\,dW` on every token the uniform
density is stable up to :math:`\kappa_c(\beta)`, and loses to ordered ones beyond.
"""

import jax

from attnflow.experiments import bifurcation

jax.config.update("jax_enable_x64", True)

data = bifurcation.run(
    bifurcation.Config(
        models=("sa", "usa"), dimensions=(2,), betas=(4.0,), n=64, runs=4, most_steps=300
    )
)
figure = bifurcation.draw(data)

# %%
# Lines are stationary densities, followed around their folds, solid where they are stable; dots
# are runs of 64 noisy tokens with 95 % intervals. Softmax attention (SA) orders continuously
# here. Unnormalised attention (USA) has a branch that leaves :math:`\kappa_c` backwards: order
# jumps, and which state one sees depends on where one came from. Finitely many tokens have an
# order parameter of about :math:`n^{-1/2}` even in disorder.

print(bifurcation.summary(data))
