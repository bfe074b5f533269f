r"""
Trained model: MiniLM on a text
===============================

Do the tokens of a trained model gather? ``models.probe`` follows 128 tokens of English prose
through MiniLM, a sentence encoder that ships as a package, with controls and theory on the same
axes.
"""

import jax

from attnflow.experiments import trained_model

jax.config.update("jax_enable_x64", True)

data = trained_model.run(trained_model.Config(tokens=128))
figure = trained_model.draw(data)

# %%
# The table begins with which hypotheses of the theorems hold here and which fail: trained layers
# differ and have MLPs, so that the curves of theory are marks to compare with and no prediction
# of this model.

print(trained_model.summary(data))
