r"""
Design: what to ask before training
===================================

How deep may a Transformer of a given shape be before its tokens are one at initialisation? Depth
budget, norm scheme and logit scale from closed forms, for GPT-2's shape, with a small random
Transformer run beside its own theory.
"""

import jax

from attnflow.experiments import design

jax.config.update("jax_enable_x64", True)

data = design.run(design.Config(measure=True))
figure = design.draw(data)

# %%
# One cosine for all pairs and full attention are assumed, at initialisation (fresh weights) and
# with aligned heads (:math:`Q = K = V = I`, the worst case). Trained weights and causal masks
# differ.

print(design.summary(data))
