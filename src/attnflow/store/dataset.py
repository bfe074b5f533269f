"""A labelled dataset as a Zarr folder, version 3, and back to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    import xarray

_NUMBERS = "biufc"
_RESERVED = frozenset(
    (
        "_FillValue",
        "_Unsigned",
        "missing_value",
        "scale_factor",
        "add_offset",
        "dtype",
        "coordinates",
    )
)


def storable(dataset: "xarray.Dataset") -> "xarray.Dataset":
    """Copy of a dataset that a Zarr folder holds without pickle and without losing a bit.

    Booleans, integers, floats, complex numbers and strings stay; attributes become plain JSON
    values (NumPy arrays and tuples become lists); encodings from another file are dropped.

    Raises:
        ValueError: For any other dtype (objects, dates), a name with a slash, an index of several
            levels, or an attribute that JSON lacks or that Zarr readers take as an encoding.
    """
    if any(index.nlevels > 1 for index in dataset.indexes.values()):
        raise ValueError(
            "Argument `dataset` must have simple indexes, but one has several levels. "
            "Call `dataset.reset_index`."
        )
    for name, variable in dataset.variables.items():
        _check_variable(name, variable)
    plain = dataset.copy().drop_encoding()
    for name in plain.variables:
        plain[name].attrs = _plain_attributes(plain[name].attrs, str(name))
    plain.attrs = _plain_attributes(plain.attrs, "dataset")
    return plain


def write_dataset(dataset: "xarray.Dataset", target: Path) -> None:
    """Write a storable dataset to the new folder `target`, every chunk of it."""
    import numpy as np

    text = np.dtypes.StringDType()
    plain = _with_text(dataset, lambda values: values.astype(text))
    floats = [name for name, variable in plain.variables.items() if variable.dtype.kind in "fc"]
    try:
        plain.to_zarr(
            target,
            mode="w-",
            zarr_format=3,
            consolidated=False,
            write_empty_chunks=True,
            encoding={name: {"_FillValue": None} for name in floats},
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"Argument `dataset` cannot be stored: {error}") from error


def read_dataset(source: Path) -> "xarray.Dataset":
    """Dataset of a folder that `write_dataset` wrote, in memory, its strings of fixed width."""
    import xarray as xr

    with xr.open_dataset(
        source, engine="zarr", consolidated=False, chunks=None, decode_times=False
    ) as lazy:
        return _with_text(lazy.load(), _fixed_width).drop_encoding()


def _check_variable(name: Any, variable: "xarray.Variable") -> None:
    if not isinstance(name, str) or "/" in name or not name.strip(".") or name == "zarr.json":
        raise ValueError(
            f"Argument `dataset` must name its variables by words, but one is called {name!r}."
        )
    if variable.dtype.kind not in _NUMBERS and not _is_text(variable):
        remedy = " Store numbers with a `units` attribute." if variable.dtype.kind in "mM" else ""
        raise ValueError(
            f"Argument `dataset` must hold numbers, booleans or strings, but variable `{name}` has "
            f"dtype {variable.dtype}, which would need pickle or lose bits.{remedy}"
        )


def _is_text(variable: "xarray.Variable") -> bool:
    if variable.dtype.kind == "O":
        return all(isinstance(item, str) for item in variable.values.flat)
    return variable.dtype.kind in "UT"


def _with_text(
    dataset: "xarray.Dataset", recast: Callable[["numpy.ndarray"], "numpy.ndarray"]
) -> "xarray.Dataset":
    """Copy in which `recast` has been applied to the values of every variable of strings."""
    texts = {
        name: (variable.dims, recast(variable.values), variable.attrs)
        for name, variable in dataset.variables.items()
        if _is_text(variable)
    }
    coords = {name: text for name, text in texts.items() if name in dataset.coords}
    data = {name: text for name, text in texts.items() if name not in coords}
    return dataset.assign_coords(coords).assign(data)


def _fixed_width(values: "numpy.ndarray") -> "numpy.ndarray":
    import numpy as np

    return values.astype(f"U{np.strings.str_len(values).max(initial=1)}")


def _plain_attributes(attributes: dict[Any, Any], owner: str) -> dict[str, Any]:
    for key in attributes:
        if not isinstance(key, str) or key in _RESERVED:
            raise ValueError(
                f"Argument `dataset` must name its attributes by words that Zarr readers do not "
                f"take as an encoding, but `{owner}` has {key!r}."
            )
    return {key: _plain(value, f"{owner}.{key}") for key, value in attributes.items()}


def _plain(value: Any, name: str) -> Any:
    """JSON value of an attribute."""
    import numpy as np

    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufU":
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{name}.{key}") for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"Argument `dataset` must have attributes of numbers, strings and lists of these, "
        f"but `{name}` is a {type(value).__name__}."
    )
