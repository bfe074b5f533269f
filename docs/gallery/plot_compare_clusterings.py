r"""
Compare clusterings: attention beside the usual methods
=======================================================

Is the merge tree of attention of use on data? ``AttentionClustering`` lets the rows of a table
attend to each other and cuts the tree at the plateau that lasts longest.
"""

import jax

from attnflow.experiments import compare_clusterings

jax.config.update("jax_enable_x64", True)

data = compare_clusterings.run(
    compare_clusterings.Config(
        data=("iris",),
        methods=("attention", "HDBSCAN", "MeanShift", "attention, k", "KMeans", "Ward"),
    )
)
figure = compare_clusterings.draw(data)

# %%
# Adjusted Rand index against the classes, and clusters found; 1 is perfect, 0 chance. One data
# set and six methods here; the experiment's defaults have four and eight, and on each data set
# the order of the methods is another one.

print(compare_clusterings.summary(data))
