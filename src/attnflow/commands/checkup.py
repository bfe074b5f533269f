"""The checks of `attnflow doctor`: each says what it saw, and none of them raises."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

PARTS = (
    "jax", "jaxlib", "numpy", "scipy", "diffrax", "equinox", "jaxtyping", "xarray", "zarr", "matplotlib",
    "scikit-learn", "tyro",
)  # fmt: skip
OPTIONAL = {
    "fast sums": (("finufft",), "pip install finufft"),
    "models": (("torch", "transformers", "safetensors"), "pip install 'attnflow[models]'"),
    "dask": (("distributed",), "pip install 'attnflow[dask]'"),
    "slurm": (("submitit",), "pip install 'attnflow[slurm]'"),
    "transport": (("ot",), "pip install 'attnflow[transport]'"),
}
"""Modules of each optional part, and the line that adds it."""
CLAIMS = (
    "rotation-equivariance", "usa-is-a-gradient", "gram-gaps", "causal-row-rates", "hardmax-pair", "merge-time",
    "staircase-merges", "growth-rates", "circle-modes", "long-context-gap", "layer-step", "critical-kappa",
    "gaussian-attention-slope",
)  # fmt: skip
"""Claims from every corner, of a few seconds at most."""


@dataclass(frozen=True)
class Check:
    """What one check saw."""

    name: str
    verdict: str
    """OK, FAIL, or -- where there is nothing to check."""
    said: str
    seconds: float = 0.0


class AbsentError(Exception):
    """The optional part that a check needs is not installed."""


def versions() -> dict[str, str]:
    """Versions of attnflow, Python and what it is built on."""
    import attnflow

    own = {"attnflow": attnflow.__version__, "python": platform.python_version()}
    return own | {part: _version(part) for part in PARTS}


def machine() -> dict[str, str]:
    """Devices, memory, cores and threads."""
    import jax

    from attnflow.errors import available_memory

    kinds = [device.device_kind for device in jax.devices()]
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "devices": ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)),
        "memory": f"{available_memory() / 2**30:.1f} GiB free",
        "cores": f"{_cores()} usable of {os.cpu_count()}",
        "threads": f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, "
        f"XLA_FLAGS={os.environ.get('XLA_FLAGS', 'unset')}",
    }
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        found["device memory"] = f"{stats['bytes_limit'] / 2**30:.1f} GiB"
    return found


def optional_parts() -> dict[str, str]:
    """Versions of optional parts, or the line that adds them."""
    found = {}
    for name, (modules, remedy) in OPTIONAL.items():
        missing = [module for module in modules if not _is_there(module)]
        known = metadata.packages_distributions() if not missing else {}
        names = [known.get(module, [module])[0] for module in modules]
        here = [f"{name} {_version(name)}" for name in names]
        found[name] = f"missing {', '.join(missing)}: {remedy}" if missing else ", ".join(here)
    return found


def float64() -> Check:
    """Whether the device computes in float64 to the last digits."""
    return _watched("float64", _computes_in_float64)


def folder(out: Path) -> Check:
    """Whether runs can be kept in a folder, and how much room there is; nothing is left there."""
    return _watched("run folder", partial(_takes_runs, out))


def tried(name: str) -> Check:
    """One check of the self-test."""
    return _watched(name, SELF_TEST[name])


def _watched(name: str, check: Callable[[], str]) -> Check:
    """Run a check; an error is its verdict."""
    started = time.perf_counter()
    try:
        verdict, said = "OK", check()
    except AbsentError as absent:
        verdict, said = "--", str(absent)
    except Exception as error:
        kind = "" if isinstance(error, AssertionError | OSError) else f"{type(error).__name__}: "
        verdict, said = "FAIL", kind + " ".join(str(error).split())
    return Check(name, verdict, said, round(time.perf_counter() - started, 2))


def _computes_in_float64() -> str:
    import jax
    import jax.numpy as jnp
    import numpy as np

    x = np.linspace(0.0, 1.0, 64)
    product = jax.jit(lambda x: jnp.matmul(x, x.T, precision="highest"))(
        jnp.asarray(np.outer(x, 1 - x))
    )
    want = np.outer(x, 1 - x) @ np.outer(x, 1 - x).T
    error = float(np.abs(np.asarray(product) - want).max() / want.max())
    if product.dtype != np.float64 or not error < 1e-14:
        raise AssertionError(f"a product came back as {product.dtype}, off by {error:.1e}")
    return f"a matrix product is right to {error:.1e}"


def _takes_runs(out: Path) -> str:
    out = out.absolute()
    place = next(path for path in (out, *out.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0")
    except OSError as error:
        raise OSError(
            f"{place} takes no files: {error.strerror}. Name another folder with --out."
        ) from None
    free = shutil.disk_usage(place).free
    if free < 2**28:
        raise OSError(f"{place} has {free / 2**20:.0f} MiB left. Name another folder with --out.")
    return f"{out} can be written, {free / 2**30:.1f} GiB free"


def _claim(name: str) -> str:
    from attnflow import claims

    verdict = claims.evaluate(claims.CLAIMS[name])
    if not verdict.passed:
        raise AssertionError(f"{verdict.reason} (error {verdict.error:.1e})")
    return f"error {verdict.error:.1e}, at most {verdict.claim.tolerance:.0e}"


def _fast_sum(name: str, d: int) -> str:
    import jax.random as jr
    import numpy as np

    from attnflow import kernels, sphere
    from attnflow.kernels import fast

    if not fast.available():
        raise AbsentError("needs finufft: pip install finufft")
    x = sphere.uniform(jr.key(0), 512, d)
    got, want = (kernels.KERNEL_SUMS[sum](x, x, x, 30.0) for sum in (name, "dense"))
    error = max(float(np.abs(g - w).max()) for g, w in zip(got, want, strict=True))
    if not error < 1e-9:
        raise AssertionError(f"off the sum over all pairs by {error:.1e}")
    return f"the sum over all pairs to {error:.1e}"


def _coalesce() -> str:
    import jax.random as jr
    import numpy as np

    from attnflow import Attention, coalesce, sphere

    tree = coalesce(Attention(40.0), sphere.uniform(jr.key(0), 24, 2))
    if tree.status != "collapsed" or not np.all(np.diff(tree.energies) >= 0):
        raise AssertionError(f"ended as {tree.status}, energies from {tree.energies.min():.3g}")
    return f"24 tokens are one cluster at t = 10^{tree.log10_times[-1]:.1f}"


def _probe() -> str:
    if missing := [module for module in OPTIONAL["models"][0] if not _is_there(module)]:
        raise AbsentError(f"needs {', '.join(missing)}: {OPTIONAL['models'][1]}")
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2Model

    from attnflow import models

    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2))
    inputs = {"input_ids": torch.arange(24)[None] % 64}
    data = models.probe(model.eval(), inputs)
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[1][0].double().numpy()
    x = states / np.linalg.norm(states, axis=1, keepdims=True)
    want = ((x @ x.T).sum() - len(x)) / (len(x) * (len(x) - 1))
    error = abs(float(data.mean_cosine[1]) - want)
    if not error < 1e-5:
        raise AssertionError(f"the mean cosine of a layer is off by {error:.1e}")
    return f"the mean cosine of a layer is right to {error:.1e}"


SELF_TEST: dict[str, Callable[[], Any]] = {
    **{name: partial(_claim, name) for name in CLAIMS},
    "fast sum on the circle": partial(_fast_sum, "fourier", 2),
    "fast sum on S²": partial(_fast_sum, "harmonics", 3),
    "coalesce": _coalesce,
    "probe of a model": _probe,
}
"""What the self-test checks."""


def _is_there(module: str) -> bool:
    """Whether a module could be imported."""
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
