import importlib.util
import os
import sys
from pathlib import Path

import pytest

from attnflow.experiments import EXPERIMENTS

SCRIPT = Path(__file__).with_name("toy.py")


@pytest.fixture
def toy(monkeypatch):
    """The toy experiment, known while a test runs; its runs are not flushed to the disk, which is slow."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    name = "attnflow.experiments.toy"
    spec = importlib.util.spec_from_file_location(name, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del EXPERIMENTS["toy"], sys.modules[name]


@pytest.fixture
def script():
    return SCRIPT
