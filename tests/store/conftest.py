from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from attnflow import store


@dataclass(frozen=True)
class Config:
    beta: float = 9.0
    seed: int = 0


@pytest.fixture
def config():
    return Config()


@pytest.fixture
def configs():
    return [Config(seed=seed) for seed in range(3)]


@pytest.fixture
def dataset():
    ts = np.geomspace(0.1, 10, 5)
    return xr.Dataset(
        {"x": (("time", "token", "axis"), np.random.default_rng(0).normal(size=(5, 4, 3)))},
        coords={"time": ("time", ts, {"units": "dimensionless"})},
        attrs={"equation": "dx/dt = P_x A(x)", "n": 4},
    )


@pytest.fixture
def save(tmp_path, config, dataset):
    """Save the fixtures' run under tmp_path; any of its parts can be given instead."""

    def save(config=config, dataset=dataset, *, figures=None, force=False):
        folder = store.folder_of("simulate", config, tmp_path)
        provenance = {"created": f"2026-01-0{config.seed + 1}"}
        return store.save(
            folder, "simulate", config, dataset,
            provenance=provenance, figures=figures or {}, force=force,
        )  # fmt: skip

    return save
