import errno
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnflow import store

DTYPES = ["?", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", ">f8", "c8", "c16", "U3"]


def bits(array):
    return array.dtype.str, array.shape, array.tobytes()


def state(step):
    return {"x": np.random.default_rng(step).normal(size=(3, 2)), "t": np.float64(step / 3)}


def same(one, other):
    step, arrays = one
    wanted = {name: bits(np.asarray(array)) for name, array in other[1].items()}
    return step == other[0] and {n: bits(a) for n, a in arrays.items()} == wanted


@pytest.fixture
def folder(tmp_path, config):
    return store.folder_of("simulate", config, tmp_path)


@pytest.fixture
def partial(folder):
    return folder.parent / ".partial" / folder.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 2), (5,), (2, 3, 4)])
def test_arrays_come_back_to_the_same_bits(folder, dtype, shape):
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    if dtype in ("?", "U3"):
        values = rng.integers(0, 2, size).astype(dtype)
    else:
        values = np.frombuffer(rng.bytes(np.dtype(dtype).itemsize * size), dtype=dtype)
    values = values.reshape(shape)
    with store.claim(folder) as checkpoint:
        checkpoint.save(7, {"file": values, "a/b": values.T, "step": values})
        step, arrays = checkpoint.load()
    assert step == 7
    assert list(arrays) == ["file", "a/b", "step"]
    assert [bits(a) for a in arrays.values()] == [bits(values), bits(values.T), bits(values)]


def test_jax_arrays_and_keys_go_in(folder):
    key = jax.random.key(3)
    with store.claim(folder) as checkpoint:
        checkpoint.save(0, {"x": jnp.arange(3.0), "key": jax.random.key_data(key)})
        _, arrays = checkpoint.load()
        assert (jax.random.wrap_key_data(arrays["key"]) == key).all()
        for value, words in ((key, "jax.random.key_data"), ([None], "dtype=object")):
            with pytest.raises(ValueError, match=words):
                checkpoint.save(1, {"key": value})
        with pytest.raises(ValueError, match="`step` must be >= 0, but step=-1"):
            checkpoint.save(-1, {})
        assert checkpoint.load()[0] == 0


def test_a_resumed_run_finds_the_last_step(folder, partial):
    with store.claim(folder) as checkpoint:
        assert checkpoint.load() is None
        for step in (9, 10, 10**12):
            checkpoint.save(step, state(step))
    with store.claim(folder) as checkpoint:
        assert same(checkpoint.load(), (10**12, state(10**12)))
        assert len(list(partial.glob("*.npz"))) == 2
        checkpoint.save(11, state(11))
        assert same(checkpoint.load(), (11, state(11)))
        checkpoint.drop()
        assert checkpoint.load() is None


def test_checkpoints_vanish_when_the_run_is_saved(folder, save, tmp_path):
    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
        save()
        assert checkpoint.load() is None
    assert list(tmp_path.iterdir()) == [folder]


def test_a_run_without_checkpoints_leaves_no_trace(folder, tmp_path):
    with pytest.raises(ZeroDivisionError), store.claim(folder):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_keeps_its_checkpoints(folder):
    with pytest.raises(ZeroDivisionError), store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
        raise ZeroDivisionError
    store.check_writable(folder.parent)
    with store.claim(folder) as checkpoint:
        assert same(checkpoint.load(), (1, state(1)))


def test_any_changed_byte_is_harmless_or_refused(folder, partial):
    """Either the newest state comes back to the bit, or the one before it, with a warning."""
    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
        checkpoint.save(2, state(2))
        newest = max(partial.glob("*.npz"))
        whole = newest.read_bytes()
        refused = 0
        for position in range(0, len(whole), 3):
            spoiled = bytearray(whole)
            spoiled[position] ^= 1 << position % 8
            newest.write_bytes(spoiled)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loaded = checkpoint.load()
            if caught:
                refused += 1
                assert "is damaged" in str(caught[0].message)
                assert same(loaded, (1, state(1)))
            else:
                assert same(loaded, (2, state(2)))
        assert refused > len(whole) / 6


@pytest.mark.parametrize("length", [0, 1, 100, -30, -1])
def test_torn_files_are_refused(folder, partial, length):
    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
        checkpoint.save(2, state(2))
        older, newest = sorted(partial.glob("*.npz"))
        newest.write_bytes(newest.read_bytes()[:length])
        with pytest.warns(RuntimeWarning, match="2.npz is damaged .* from the one before it"):
            assert same(checkpoint.load(), (1, state(1)))
        older.write_bytes(b"")
        with pytest.warns(RuntimeWarning, match="damaged"):
            assert checkpoint.load() is None
        checkpoint.save(1, state(1))
        assert same(checkpoint.load(), (1, state(1)))


def test_a_consistent_forgery_is_refused(folder, partial):
    """The archive's own checksums fit, the content does not."""
    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
        (path,) = partial.glob("*.npz")
        with np.load(path) as archive:
            members = dict(archive)
        np.savez(path, **(members | {"step": np.int64(5)}))
        with pytest.warns(RuntimeWarning, match="checksum does not fit"):
            assert checkpoint.load() is None


def test_a_pickle_is_never_opened(folder, partial):
    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
        (path,) = partial.glob("*.npz")
        np.savez(path, **{"array.x": np.array([print], dtype=object)})
        with pytest.warns(RuntimeWarning, match="allow_pickle=False"):
            assert checkpoint.load() is None


def test_a_full_disk_keeps_the_checkpoint_before(folder, partial, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match=r"step 2 could not be written .* No space left"):
                checkpoint.save(2, state(2))
        assert same(checkpoint.load(), (1, state(1)))
        assert len(list(partial.iterdir())) == 2


def test_the_second_process_is_told_who_computes(folder):
    code = f"""
from attnflow import store
try:
    with store.claim({str(folder)!r}):
        print("claimed")
except BlockingIOError as error:
    print(error)
"""

    def attempt():
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return run.stdout.strip()

    with store.claim(folder):
        message = attempt()
        assert message.startswith(f"Run {folder.name} is being computed by process {os.getpid()}.")
        assert "\n" not in message
    assert attempt() == "claimed"


def test_an_unwritable_root_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match=r"Cannot hold .* for a run: Not a directory"),
        store.claim(tmp_path / "file" / "simulate-01234567"),
    ):
        pass


def test_cleaning_spares_live_runs_and_useful_checkpoints(folder, save, tmp_path, configs):
    other = store.folder_of("simulate", configs[1], tmp_path)
    with store.claim(folder) as checkpoint:
        assert store.clean_leftovers(tmp_path) == []
        checkpoint.save(1, state(1))
    assert store.clean_leftovers(tmp_path) == []
    (tmp_path / ".partial" / other.name).mkdir()
    (tmp_path / ".saving-1-2" / "new").mkdir(parents=True)
    assert len(store.clean_leftovers(tmp_path)) == 2
    with store.claim(folder) as checkpoint:
        assert checkpoint.load()[0] == 1


def test_a_forced_run_can_be_resumed_until_it_is_saved(folder, save, tmp_path):
    save()
    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
    store.check_writable(tmp_path)
    with store.claim(folder) as checkpoint:
        assert checkpoint.load()[0] == 1


def test_checkpoints_older_than_their_run_are_cleared(folder, partial, save, tmp_path):
    """As after a kill between the run's rename and the removal of its checkpoints."""
    with store.claim(folder) as checkpoint:
        checkpoint.save(1, state(1))
    path = next(partial.glob("*.npz"))
    content, old = path.read_bytes(), path.stat()
    save()
    path.write_bytes(content)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert store.clean_leftovers(tmp_path) == [partial]
    assert list(tmp_path.iterdir()) == [folder]


def test_parts_come_back_in_order_up_to_the_last_checkpoint(tmp_path):
    with store.claim(tmp_path / "run") as checkpoint:
        assert checkpoint.kept() == []
        for step in (4, 8):
            checkpoint.keep(step, {"x": np.full(2, step)})
            checkpoint.save(step, {"t": np.asarray(step)})
        checkpoint.keep(12, {"x": np.full(2, 12)})  # killed before its checkpoint
        assert [part["x"][0] for part in checkpoint.kept()] == [4, 8]
        checkpoint.keep(8, {"x": np.full(2, 9)})
        assert [part["x"][0] for part in checkpoint.kept()] == [4, 9]
        part = checkpoint.folder / "part-000000000008.npz"
        part.write_bytes(part.read_bytes()[:-40])
        with pytest.raises(RuntimeError, match=r"A part of the run .* is damaged"):
            checkpoint.kept()
        checkpoint.drop()
        assert checkpoint.kept() == []
