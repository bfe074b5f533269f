import subprocess
import sys

import pytest

from attnflow import theory


def test_submodules_load_on_first_use():
    code = (
        "import sys, attnflow.theory as t; "
        "assert not any(m.startswith('scipy') for m in sys.modules); "
        "assert t.equiangular.phase_curve(0.0, n=2) > 3; "
        "assert not {'jax', 'diffrax', 'xarray', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listed_submodules_exist():
    for name in dir(theory):
        assert getattr(theory, name).__name__ == f"attnflow.theory.{name}"
    with pytest.raises(AttributeError, match="nothing"):
        theory.nothing  # noqa: B018
