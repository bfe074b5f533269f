import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import _pylab_helpers


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_figure_is_left_to_a_window_system():
    yield
    assert not _pylab_helpers.Gcf.figs  # what `plt.get_fignums()` lists


@pytest.fixture
def bare_python():
    """Runs code in a fresh interpreter without display or backend; returns what it prints."""
    hidden = ("MPLBACKEND", "DISPLAY", "WAYLAND_DISPLAY")
    env = {name: value for name, value in os.environ.items() if name not in hidden}

    def run(code):
        command = [sys.executable, "-W", "error", "-c", code]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    return run
