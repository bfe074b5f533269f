r"""
Scale: a trained model at longer contexts
=========================================

By which factor should logits grow at longer contexts? Each head of MiniLM is measured at 128
tokens and placed on the long-context phase diagram; the factor that keeps the cosine of its
outputs follows, beside published rules.
"""

import jax

from attnflow.experiments import scale

jax.config.update("jax_enable_x64", True)

data = scale.run(scale.Config(n0=128, lengths=("256", "4k", "32k"), apply=True))
figure = scale.draw(data)

# %%
# The scaled model is measured again where its position table reaches: the last lines say how far
# the cosines then are from what was predicted for equal cosines, which trained heads do not have.

print(scale.summary(data))
