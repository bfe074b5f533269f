import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from attnflow.cluster import AttentionClustering
from attnflow.experiments import compare_clusterings
from attnflow.experiments.compare_clusterings import METHODS, QUANTITIES, Config

SMALL = Config(data=("iris", "wine"), methods=("attention", "HDBSCAN", "Ward"))
TIMES = ("first_seconds", "seconds")


@pytest.fixture(scope="module")
def small():
    return compare_clusterings.run(SMALL)


@pytest.mark.parametrize(
    ("method", "estimator"),
    [
        ("attention", AttentionClustering()),
        ("HDBSCAN", HDBSCAN(copy=True)),
        ("Ward", AgglomerativeClustering(3)),
    ],
)
def test_scores_are_those_of_the_estimators(small, method, estimator):
    x, classes = compare_clusterings.load(SMALL, "wine")
    labels = estimator.fit_predict(x)
    cell = small.sel(dataset="wine", clustering=method)
    assert cell.ari == adjusted_rand_score(classes, labels)
    assert cell.clusters == labels.max() + 1
    assert cell.left_out == np.mean(labels == -1)
    if method == "attention":
        assert cell.beta == estimator.beta_
        assert cell.persistence == estimator.plateau_.persistence
    else:
        assert np.isnan(cell.beta)


def test_data_are_standardised_unless_told_otherwise_or_pixels():
    x, classes = compare_clusterings.load(SMALL, "wine")
    np.testing.assert_allclose(x.std(axis=0), 1, rtol=1e-12)
    assert len(x) == len(classes) == 178
    raw, _ = compare_clusterings.load(replace(SMALL, standardize=False), "wine")
    assert raw.max() > 1000
    pixels, _ = compare_clusterings.load(replace(SMALL, dtype="float32"), "digits")
    assert (pixels.max(), pixels.dtype) == (16, np.float32)


def test_every_method_is_in_the_table_of_the_default_run():
    assert set(Config().methods) == set(METHODS)
    needs = [METHODS[name][0] for name in Config().methods]
    assert [text.startswith("nothing") for text in needs] == [True] * 4 + [False] * 4


def test_table_figure_and_numbers(small):
    table = compare_clusterings.summary(small)
    assert "wine: 178 rows, 13 features, 3 classes" in table
    assert f"{small.ari.sel(dataset='wine', clustering='Ward').item():.3f}" in table
    figure = compare_clusterings.draw(small)
    figure.draw_without_rendering()
    assert [ax.get_title(loc="left").split("\n")[0] for ax in figure.axes] == ["iris", "wine"]
    values = json.loads(json.dumps(compare_clusterings.numbers(small), allow_nan=False))
    assert values["iris"]["Ward"]["needs"] == "k"
    assert values["iris"]["Ward"]["beta"] is None
    assert values["iris"]["attention"]["ari"] == small.ari.values[0, 0]


class Kept:
    """A checkpoint in memory, which may stop the run after a step."""

    def __init__(self, last=None):
        self.last, self.state = last, None

    def load(self):
        return self.state

    def save(self, step, arrays):
        self.state = step, {name: array.copy() for name, array in arrays.items()}
        if step == self.last:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on(small):
    kept = Kept(last=2)
    with pytest.raises(KeyboardInterrupt):
        compare_clusterings.run(SMALL, checkpoint=kept)
    seconds = kept.state[1]["seconds"].copy()
    kept.last = None
    resumed = compare_clusterings.run(SMALL, checkpoint=kept)
    for name in set(QUANTITIES) - set(TIMES):
        np.testing.assert_array_equal(resumed[name], small[name])
    np.testing.assert_array_equal(resumed.seconds.values[0, :2], seconds[0, :2])


def test_import_is_light():
    """`attnflow run compare-clusterings --help` needs the config only."""
    code = (
        "import sys; import attnflow.experiments.compare_clusterings; "
        "print([m for m in ('jax', 'xarray', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ("digit",)}, "`data` must be one of .* Did you mean 'digits'"),
        ({"methods": ("kmeans",)}, "`methods` must be one of"),
        ({"data": ()}, r"`len\(data\)` must be a whole number >= 1"),
        ({"methods": ()}, r"`len\(methods\)` must be a whole number >= 1"),
        ({"data": ("iris", "iris")}, "`data` must not repeat a name"),
        ({"dtype": "float16"}, "`dtype` must be one of"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        compare_clusterings.run(Config(**changes))
