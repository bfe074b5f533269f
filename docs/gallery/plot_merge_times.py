r"""
Merge times: an exponential law in the gap
==========================================

By which law does the time of a merge grow with :math:`\beta`? Two clusters at an angle :math:`g`
pull each other with a force of order :math:`e^{-\beta(1 - \cos g)}`, so that :math:`\log T`
should grow with the slope :math:`1 - \cos g`.
"""

import jax

from attnflow.experiments import merge_times

jax.config.update("jax_enable_x64", True)

data = merge_times.run(
    merge_times.Config(n=4, beta_min=60.0, beta_max=120.0, beta_count=3, seeds=6)
)
figure = merge_times.draw(data)

# %%
# Each start is run to one cluster at three :math:`\beta`, under softmax (SA) and unnormalised
# attention (USA). The slope of :math:`\log(\beta T)` over :math:`\beta`, divided by the gap
# :math:`1 - \cos g` that the last pair had to cross, is the number in the first lines; 1 is the
# law.

print(merge_times.summary(data))
