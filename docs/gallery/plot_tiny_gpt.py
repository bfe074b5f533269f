r"""
Tiny GPT: training under three norm schemes
===========================================

Does the order of collapse predicted at initialisation survive training? Character GPTs under
Post-, Pre- and Peri-LN, on Python's reference manual.
"""

import jax

from attnflow.experiments import tiny_gpt

jax.config.update("jax_enable_x64", True)

data = tiny_gpt.run(
    tiny_gpt.Config(
        d=32,
        n=32,
        heads=2,
        shallow=2,
        deep=4,
        steps=60,
        batch=8,
        warmup=10,
        draws=2,
        characters=60_000,
    )
)
figure = tiny_gpt.draw(data)

# %%
# These models are as small as trains at all, 2 and 4 layers of width 32 for 60 steps: a picture
# of what the experiment does, not evidence. Its defaults (12 layers, 500 steps) take minutes.

print(tiny_gpt.summary(data))
