"""Starts by name and from files; every bad file is one sentence."""

import io
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits

from attnflow.experiments import simulate, tokens
from attnflow.experiments.simulate import Config, resolve


def unit_rows(n=6, d=3, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("name", tokens.STARTS)
def test_every_start_gives_unit_tokens_in_the_asked_dtype(name):
    x = tokens.start(resolve(Config(tokens=name, n=8, d=4, dtype="float32")))
    assert x.dtype == np.float32 and len(x) == 8
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)


def test_digits_are_the_images_as_directions():
    images = load_digits(return_X_y=True)[0]
    x = tokens.digits()
    np.testing.assert_allclose(
        x * np.linalg.norm(images, axis=1, keepdims=True), images, atol=1e-12
    )


@pytest.mark.parametrize("suffix", tokens.READERS)
def test_files_round_trip(tmp_path, suffix):
    x, path = unit_rows(), tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, x)
    elif suffix == ".npz":
        np.savez(path, x=x)
    elif suffix == ".csv":
        np.savetxt(path, x, delimiter=",", fmt="%.17g")
    else:
        pytest.importorskip("safetensors.numpy").save_file({"x": x}, path)
    np.testing.assert_array_equal(tokens.read_tokens(path), x)


def test_array_of_several(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=unit_rows(), b=unit_rows(seed=1))
    np.testing.assert_array_equal(tokens.read_tokens(path, array="b"), unit_rows(seed=1))
    with pytest.raises(ValueError, match=r"must name one of the 2 arrays .*\(a, b\)"):
        tokens.read_tokens(path)
    with pytest.raises(ValueError, match="must be one of a, b, but array='c'"):
        tokens.read_tokens(path, array="c")


def test_normalize_scales_rows_and_is_offered(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, 3 * unit_rows())
    with pytest.raises(ValueError, match=r"must hold unit vectors.*Pass --normalize"):
        tokens.read_tokens(path)
    np.testing.assert_allclose(tokens.read_tokens(path, normalize=True), unit_rows(), atol=1e-15)


def test_integers_are_numbers_too(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3, dtype=int))
    assert tokens.read_tokens(tmp_path / "x.npy").dtype == np.float64


def saved(path, array):
    np.save(path, array)
    return path


def test_python_objects_are_never_loaded(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1.0, {}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"holds Python objects, which are never loaded"):
        tokens.read_tokens(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1.0, np.nan]]), "must be finite"),
        (np.array([[1.0, np.inf]]), "must be finite"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), r"rows are zero, first tokens\[1\]"),
        (np.ones((4, 1)), r"d >= 2, but tokens.shape=\(4, 1\)"),
        (np.ones(4), r"must have shape \(n, d\)"),
        (np.empty((0, 3)), "n >= 1"),
        (np.array([["a", "b"]]), "must name an array of real numbers"),
        (np.eye(2, dtype=complex), "must name an array of real numbers"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        tokens.read_tokens(saved(tmp_path / "x.npy", array))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,0\n", r"line 1: could not convert string to float: 'a'. Leave out headers"),
        ("1,0\n0,x\n", "line 2"),
        ("1,0\n0,1,0\n", "2 columns in line 1 and 3 in line 2"),
        ("", "must have shape"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        tokens.read_tokens(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_corrupt_files(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"this is no array at all, not even a short one")
    with pytest.raises(ValueError, match="is corrupt"):
        tokens.read_tokens(path)


def test_truncated_file(tmp_path):
    path = saved(tmp_path / "x.npy", unit_rows(100))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="is corrupt"):
        tokens.read_tokens(path)


def test_a_file_too_large_is_refused_from_its_header(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**3)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    (tmp_path / "x.npy").write_bytes(header.getvalue())
    for name in ("x.npy", "x.npz"):
        with pytest.raises(MemoryError, match=r"needs about 7.5e\+03 GiB, but .* GiB are free"):
            tokens.read_tokens(tmp_path / name)


def test_missing_file_suggests_its_neighbour(tmp_path):
    saved(tmp_path / "tokens.npy", unit_rows())
    with pytest.raises(FileNotFoundError, match=r"Did you mean '.*tokens.npy'"):
        tokens.read_tokens(tmp_path / "token.npy")


def test_unknown_start_lists_the_known():
    with pytest.raises(ValueError, match=r"must be one of .*uniform.*Did you mean 'uniform'\?"):
        tokens.start(resolve(Config(tokens="unifrom", n=4)))


def test_a_run_that_cannot_fit_is_refused_before_it_starts(monkeypatch):
    import attnflow.errors

    monkeypatch.setattr(attnflow.errors, "available_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match="A run of 64 tokens with 65 saved states needs about"):
        simulate.run(Config())
