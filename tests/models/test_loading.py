"""Checkpoints: what loads, what is refused, and that no pickle ever runs."""

import json
import pickle

import numpy as np
import pytest
import torch

from attnflow.models import load, read_states


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_saved_model_loads(build, tmp_path):
    model, inputs = build("bert")
    model.save_pretrained(tmp_path)
    loaded, tokenizer = load(tmp_path)
    assert tokenizer is None
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused_and_never_run(build, tmp_path, name):
    build("bert")[0].config.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises(ValueError, match=f"{name}, a pickle, which can run code"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_pickles_beside_safetensors_stay_unread(build, tmp_path):
    build("bert")[0].save_pretrained(tmp_path)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_saved_states(tmp_path):
    states = np.random.default_rng(0).normal(size=(3, 5, 4))
    np.savez(tmp_path / "a.npz", states=states)
    np.savez(tmp_path / "b.npz", **{f"layer{k}": states[k] for k in range(3)})
    for name in ("a.npz", "b.npz"):
        assert np.array_equal(read_states(tmp_path / name), states)
    np.savez(tmp_path / "c.npz", a=np.array([Malicious(tmp_path / "ran")], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_states(tmp_path / "c.npz")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match=r"\.npz or \.safetensors"):
        read_states(tmp_path / "a.pkl")


def test_bad_folders(build, tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no config\.json"):
        load(tmp_path)
    config = build("bert")[0].config.to_dict()
    for change, sentence in (
        ({"auto_map": {"AutoModel": "evil.Model"}}, "must not need code of its own"),
        ({"is_encoder_decoder": True}, "an encoder or a decoder"),
        ({}, "it holds none"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=sentence):
            load(tmp_path)


def test_weights_beyond_memory(build, tmp_path):
    build("bert")[0].config.save_pretrained(tmp_path)
    header = json.dumps(
        {"w": {"dtype": "F16", "shape": [10**7, 10**7], "data_offsets": [0, 0]}}
    ).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(MemoryError, match=r"372529\.0 GiB in float32"):
        load(tmp_path)
