import errno
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import xarray as xr

import attnflow
from attnflow import store

DTYPES = ["?", "i1", "u1", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]


def bits(values):
    return values.dtype.str, values.shape, values.tobytes()


def edit(folder, **changes):
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | changes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_numbers_come_back_to_the_same_bits(save, dtype, shape):
    raw = np.random.default_rng(1).bytes(np.dtype(dtype).itemsize * int(np.prod(shape)))
    values = np.frombuffer(raw, dtype="u1" if dtype == "?" else dtype)
    values = (values % 2 == 0 if dtype == "?" else values).reshape(shape)
    dims = tuple("abc"[: len(shape)])
    back = store.load(save(dataset=xr.Dataset({"v": (dims, values)})))
    assert bits(back.v.values) == bits(values)


def test_constant_chunks_keep_their_bits(save):
    values = np.stack([np.full(9, v) for v in (0.0, -0.0, np.nan, -np.nan, np.inf)])
    back = store.load(save(dataset=xr.Dataset({"v": (("a", "b"), values)})))
    assert bits(back.v.values) == bits(values)


def test_strings_coords_and_attributes_come_back(save):
    dataset = xr.Dataset(
        {
            "norm": ("flow", np.array(["post", "", "ß∂"]), {"units": "seconds since 2000-01-01"}),
            "loose": ("flow", np.array(["a", "bb", "c"], dtype=object)),
            "time_spent": ((), 3.5, {"units": "seconds"}),
        },
        coords={"flow": ["sa", "usa", "causal"], "seed": 3, "label": "staircase", "k": ("k", [])},
        attrs={
            "equation": "dx/dt = P_x A(x)", "n": 3, "rho": 0.1, "log": True, "none": None,
            "limit": np.inf, "beta": np.float32(1.5), "betas": (1, 2.5), "sizes": np.arange(3),
            "nested": {"a": [1, {"b": "c"}]},
        },
    )  # fmt: skip
    back = store.load(save(dataset=dataset))
    expected = dataset.assign(loose=("flow", ["a", "bb", "c"]))
    expected.attrs |= {"beta": 1.5, "betas": [1, 2.5], "sizes": [0, 1, 2]}
    xr.testing.assert_identical(back, expected)
    assert {type(v) for v in back.attrs.values()} == {
        str, int, float, bool, type(None), list, dict,
    }  # fmt: skip
    assert back.norm.dtype == np.dtype("U4")
    assert back.sel(flow="usa").loose == "bb"


def test_encodings_of_another_file_are_dropped(save):
    dataset = xr.Dataset({"v": ("a", np.array([0.123456789, 1.0]))})
    dataset.v.encoding = {"dtype": "int16", "scale_factor": 0.01}
    assert store.load(save(dataset=dataset)).v.values[0] == 0.123456789
    assert dataset.v.encoding["dtype"] == "int16"


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (xr.Dataset({"v": ("a", np.array([1, "x"], dtype=object))}), "`v` has dtype object"),
        (xr.Dataset({"v": ("a", np.array(["2026"], dtype="M8[ns]"))}), "`units` attribute"),
        (xr.Dataset({"v": ("a", np.array([b"x"]))}), "would need pickle or lose bits"),
        (xr.Dataset({"v": ("a", np.zeros(1, dtype=[("f", "i4")]))}), "would need pickle"),
        (xr.Dataset({"a/b": ("a", [1.0])}), "one is called 'a/b'"),
        (xr.Dataset({3: ("a", [1.0])}), "one is called 3"),
        (xr.Dataset(attrs={"f": print}), "`dataset.f` is a builtin_function_or_method"),
        (xr.Dataset({"v": ((), 1.0, {"scale_factor": 2})}), "`v` has 'scale_factor'"),
        (xr.Dataset(coords={"a": [1], "b": [2]}).stack(c=["a", "b"]), "reset_index"),
    ],
)
def test_what_needs_pickle_or_loses_bits_is_refused(save, tmp_path, dataset, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        save(dataset=dataset)
    assert list(tmp_path.iterdir()) == []


def test_folder_holds_config_result_and_figures(save, config):
    folder = save(figures={"figure.pdf": b"%PDF"})
    assert store.load(folder).x.shape == (5, 4, 3)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "figure.pdf", "result.zarr",
    ]  # fmt: skip
    record = store.read_config(folder)
    assert record["format"] == store.FORMAT
    assert record["experiment"] == "simulate"
    assert record["config"] == {"beta": 9.0, "seed": 0}
    assert record["hash"] == store.fingerprint("simulate", config)


def test_figures_can_be_drawn_into_the_folder(save):
    folder = save(figures=lambda folder: (folder / "a.png").write_bytes(b"png"))
    assert (folder / "a.png").read_bytes() == b"png"


@pytest.mark.parametrize("name", ["../x", "config.json", ".hidden", "result.zarr", "a/b", ""])
def test_figures_have_file_names(save, name):
    with pytest.raises(ValueError, match="Argument `figures` must have file names"):
        save(figures={name: b""})


def test_a_failing_figure_leaves_nothing(save, tmp_path):
    with pytest.raises(ZeroDivisionError):
        save(figures=lambda folder: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_provenance_says_where_a_result_comes_from():
    record = store.gather_provenance(device="cpu", dtype="float64", wall_time=1.5)
    assert (record["device"], record["dtype"]) == ("cpu", "float64")
    assert record["wall_time"] == 1.5
    assert record["attnflow"] == attnflow.__version__
    assert record["numpy"] == np.__version__
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["created"].endswith("+00:00")
    assert record["commit"] is None or re.fullmatch("[0-9a-f]{40}", record["commit"])
    assert (record["commit"] is None) == (record["dirty"] is None)
    assert json.loads(json.dumps(record)) == record


def test_first_of_two_runs_stays_unless_forced(save, dataset):
    folder = save()
    save(dataset=dataset + 1)
    xr.testing.assert_identical(store.load(folder), dataset)
    save(dataset=dataset + 1, force=True)
    xr.testing.assert_equal(store.load(folder), dataset + 1)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_exists_is_for_finished_runs(save, tmp_path, config):
    folder = store.folder_of("simulate", config, tmp_path)
    assert not store.exists(folder)
    assert store.exists(save())


@pytest.mark.parametrize("force", [False, True])
def test_a_foreign_folder_is_never_replaced(save, tmp_path, config, force):
    folder = store.folder_of("simulate", config, tmp_path)
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"no config\.json"):
        store.exists(folder)
    with pytest.raises(FileExistsError, match="could not be stored"):
        save(force=force)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_two_configs_with_one_name_get_two_folders(save, tmp_path, config):
    folder = save()
    edit(folder, hash="0" * 64)
    other = store.folder_of("simulate", config, tmp_path)
    assert other.name == "simulate-" + store.fingerprint("simulate", config)[:16]
    assert store.exists(save())
    assert {info.name for info in store.list_runs(tmp_path)} == {folder.name, other.name}


def test_a_result_is_not_filed_under_a_wrong_name(tmp_path, configs, dataset):
    folder = store.folder_of("simulate", configs[1], tmp_path)
    with pytest.raises(ValueError, match="`folder` must be folder_of"):
        store.save(folder, "simulate", configs[0], dataset, provenance={})


def test_an_input_that_changed_meanwhile_is_told(tmp_path, dataset):
    @dataclass(frozen=True)
    class Config:
        tokens: str = field(metadata={"file": True})

    source = tmp_path / "tokens.csv"
    source.write_text("1,2")
    config = Config(str(source))
    folder = store.folder_of("simulate", config, tmp_path / "runs")
    source.write_text("1,3")
    with pytest.raises(ValueError, match="file of `tokens` changed while it was used"):
        store.save(folder, "simulate", config, dataset, provenance={})
    folder = store.folder_of("simulate", config, tmp_path / "runs")
    store.save(folder, "simulate", config, dataset, provenance={})
    assert store.read_config(folder)["inputs"].keys() == {"tokens"}


def test_list_shows_runs_oldest_first_and_nothing_else(save, tmp_path, configs):
    folders = [save(config) for config in reversed(configs)]
    for name in (".saving-1-2", "notes", "simulate-0123456", "simulate-01234567", ".partial"):
        (tmp_path / name).mkdir()
    (tmp_path / "simulate-89abcdef").write_text("a file")
    infos = store.list_runs(tmp_path)
    assert [info.folder for info in infos] == folders[::-1]
    assert [info.config["seed"] for info in infos] == [0, 1, 2]
    assert all(info.experiment == "simulate" and info.size > 0 for info in infos)
    assert not any(info.problem for info in infos)
    assert store.list_runs(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: edit(f, format=store.FORMAT + 1), "newer attnflow .* Upgrade"),
        (lambda f: (f / "config.json").write_text('{"format": 1'), "damaged: config.json is no"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "damaged: config.json is no JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "damaged: config.json lacks"),
        (lambda f: edit(f, format="1"), "damaged: config.json lacks"),
        (lambda f: edit(f, format=True), "damaged: config.json lacks"),
        (lambda f: edit(f, result=None), "damaged: config.json lacks"),
        (lambda f: (f / "result.zarr").rename(f / "r"), "damaged: it has no result.zarr"),
        (lambda f: (f / "config.json").unlink(), "no run: it holds no config.json"),
    ],
)
def test_a_spoiled_run_is_told_in_one_sentence(save, spoil, words):
    folder = save()
    spoil(folder)
    for read in (store.exists, store.load):
        with pytest.raises(ValueError, match=words) as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    listed = store.list_runs(folder.parent)
    assert all(info.problem for info in listed if (folder / "result.zarr").exists())


def test_any_lost_or_changed_file_of_a_result_is_noticed(save):
    folder = save()
    for path in sorted((folder / "result.zarr").rglob("*")):
        if path.is_file():
            whole = path.read_bytes()
            for spoiled in (None, whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
                path.unlink() if spoiled is None else path.write_bytes(spoiled)
                with pytest.raises(ValueError, match="is damaged"):
                    store.load(folder)
                path.write_bytes(whole)
    store.load(folder)


def test_a_path_that_is_no_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no run"):
        store.load(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="is no run"):
            store.read_config(path)


def test_find_takes_names_prefixes_hashes_and_paths(save, tmp_path, configs):
    folder = save()
    prefix, _, digits = folder.name.rpartition("-")
    for name in (folder.name, prefix, folder.name[:-3], digits[:6], str(folder), f"{folder}/"):
        assert store.find(tmp_path, name) == folder
    save(configs[1])
    with pytest.raises(ValueError, match=r"fits 2: simulate-.*, simulate-.*\. Give more letters"):
        store.find(tmp_path, "sim")


def test_find_suggests_the_nearest_name(save, tmp_path):
    for name in ("simulate", ""):
        with pytest.raises(ValueError, match="There are no runs yet"):
            store.find(tmp_path, name)
    folder = save()
    with pytest.raises(ValueError, match=f"Did you mean {folder.name}?"):
        store.find(tmp_path, folder.name.replace("simulate", "simluate"))
    with pytest.raises(ValueError, match=f"Known: {folder.name}"):
        store.find(tmp_path, "zzz")


def test_an_unwritable_root_is_told_before_work(tmp_path, save):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "runs", "/proc/runs"):
        with pytest.raises(OSError, match="`root` must be a writable folder") as caught:
            store.check_writable(root)
        assert str(caught.value).startswith("Argument")
    store.check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_full_disk_leaves_nothing_and_is_told(save, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not be written .* No space left on device") as caught:
        save()
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_file_size_is_told(tmp_path, dataset):
    """The kernel refuses the write itself, deep inside Zarr."""
    code = f"""
import resource, signal, numpy as np, xarray as xr
from dataclasses import make_dataclass
from attnflow import store
config = make_dataclass("Config", [], frozen=True)()
dataset = xr.Dataset({{"v": ("a", np.random.default_rng(0).normal(size=100_000))}})
folder = store.folder_of("simulate", config, {str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    store.save(folder, "simulate", config, dataset, provenance={{}})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.match(r"Run simulate-\w+ could not be written to .*: File too large\.", done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("provenance", [{"a": np.float32(1)}, {"a": float("nan")}])
def test_provenance_is_json(tmp_path, config, dataset, provenance):
    folder = store.folder_of("simulate", config, tmp_path)
    with pytest.raises(ValueError, match="`provenance` must hold JSON values"):
        store.save(folder, "simulate", config, dataset, provenance=provenance)


def test_import_is_light():
    heavy = "{'numpy', 'jax', 'xarray', 'zarr', 'matplotlib', 'subprocess'}"
    code = f"import sys, attnflow.store as s; s.list_runs(); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_is_replaced_while_it_is_read_is_read_again(save, dataset, monkeypatch, fails):
    """Without a second look one would get the old labels with the new numbers, or an error."""
    folder, newer = save(), (dataset + 1).assign_attrs(generation=1)
    opened = []

    def open_dataset(*args, true_open=xr.open_dataset, **options):
        lazy = true_open(*args, **options)
        opened.append(lazy)
        if len(opened) == 1:
            save(dataset=newer, force=True)
            if fails:
                raise FileNotFoundError("chunk")
        return lazy

    monkeypatch.setattr(xr, "open_dataset", open_dataset)
    xr.testing.assert_identical(store.load(folder), newer)
    assert len(opened) == 2


def test_a_reader_waits_for_the_second_half_of_a_replacement(save, dataset):
    folder = save()
    aside = folder.parent / ".saving-1-2" / "old" / folder.name
    aside.parent.mkdir(parents=True)
    folder.rename(aside)
    thread = threading.Timer(0.2, aside.rename, [folder])
    thread.start()
    xr.testing.assert_identical(store.load(folder), dataset)
    thread.join()
