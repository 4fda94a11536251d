"""Weights of other projects: every kind of file gives the tensors and settings that were put into it."""

import argparse
import json
from collections import defaultdict
from pathlib import Path, PurePosixPath

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from smalti.errors import SmaltiError
from smalti.interop.weights import read_weights

from .foreign import classes, flax_bytes, save_dall_e

TENSORS = {
    "encoder.conv.weight": torch.randn(3, 2, 1, 1),
    "encoder.conv.bias": torch.randn(3).half(),
    "quantize.embedding": torch.randn(5, 4).bfloat16(),
    "quantize.counts": torch.arange(4),
}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def nested(tensors):
    tree = {}
    for name, value in tensors.items():
        *way, last = name.split(".")
        place = tree
        for key in way:
            place = place.setdefault(key, {})
        place[last] = value
    return tree


def write(folder, kind):
    path = folder / {"flax": "flax_model.msgpack", "safetensors": "model.safetensors"}.get(kind, "last.ckpt")
    if kind == "safetensors":
        save_file(TENSORS, path)
    elif kind == "flax":
        path.write_bytes(flax_bytes(nested(TENSORS)))
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("named", ["as usual", "otherwise"])
@pytest.mark.parametrize("kind", ["safetensors", "flax", "zip", "before PyTorch 1.6"])
def test_a_file_is_known_by_its_bytes(kind, named, tmp_path):
    path = write(tmp_path, kind)
    if named == "otherwise":
        path = path.rename(tmp_path / "weights.x")
    found = read_weights(str(path))
    same(found.tensors, TENSORS)
    assert found.path == path and found.settings == {}
    assert not any(tensor.requires_grad for tensor in found.tensors.values())


@pytest.mark.parametrize("place", ["", "vqvae", "movq", "vqgan", "vq_model", "checkpoints"])
def test_a_folder_of_one_file(place, tmp_path):
    (tmp_path / place).mkdir(exist_ok=True)
    write(tmp_path / place, "safetensors")
    (tmp_path / place / "config.json").write_text('{"vq_embed_dim": 4}')
    found = read_weights(str(tmp_path))
    same(found.tensors, TENSORS)
    assert found.settings == {"vq_embed_dim": 4}


def test_the_forms_of_one_model_are_one_choice_and_others_are_not(tmp_path):
    torch.save({}, tmp_path / "pytorch_model.bin")
    write(tmp_path, "safetensors")
    same(read_weights(str(tmp_path)).tensors, TENSORS)
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "b.pt")
    with pytest.raises(SmaltiError, match=r"several files of weights; give one, as .*/NAME: a.safetensors, b.pt$"):
        read_weights(str(tmp_path))
    same(read_weights(str(tmp_path / "a.safetensors")).tensors, TENSORS)
    with pytest.raises(SmaltiError, match=r"b\.pt holds no tensors"):
        read_weights(str(tmp_path / "b.pt"))


def shards(folder, **changed):
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    keys = sorted(TENSORS)
    save_file({key: TENSORS[key] for key in keys[:2]}, folder / names[0])
    save_file({key: TENSORS[key] for key in keys[2:]}, folder / names[1])
    places = {key: names[place // 2] for place, key in enumerate(keys)} | changed
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return names


def test_several_files_with_an_index(tmp_path):
    shards(tmp_path)
    same(read_weights(str(tmp_path)).tensors, TENSORS)
    same(read_weights(str(tmp_path / "model.safetensors.index.json")).tensors, TENSORS)
    for wrong in ("../x.safetensors", "/etc/passwd", "a\\b", "model.safetensors.index.json"):
        shards(tmp_path, more=wrong)
        with pytest.raises(SmaltiError, match="which is no file beside it"):
            read_weights(str(tmp_path))
    shards(tmp_path, more="model-00001-of-00002.safetensors")
    with pytest.raises(SmaltiError, match="disagree about 'more'"):
        read_weights(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    with pytest.raises(SmaltiError, match="does not say which tensor"):
        read_weights(str(tmp_path))


def test_modules_of_openai_are_opened_without_their_package(tmp_path):
    tensors = save_dall_e(tmp_path)
    found = read_weights(str(tmp_path))
    same(found.tensors, tensors)
    assert found.path == tmp_path
    assert "encoder.blocks.group_1.block_1.res_path.conv_1.w" in tensors
    own = {name.removeprefix("decoder."): value for name, value in tensors.items() if name.startswith("decoder")}
    same(read_weights(str(tmp_path / "decoder.pkl")).tensors, own)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_modules_with_their_source_as_before_pytorch_1_6_are_not_opened(tmp_path):
    save_dall_e(tmp_path, new=False)
    with pytest.raises(SmaltiError, match="; save the state_dict alone"):
        read_weights(str(tmp_path))


def test_a_checkpoint_of_lightning(tmp_path):
    names = ["pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", "omegaconf.dictconfig.DictConfig",
             "omegaconf.nodes.AnyNode", "omegaconf.base.ContainerMetadata"]  # fmt: skip
    counts = defaultdict(list)
    counts["a"] = [1]
    with classes(*names) as (callback, table, node, metadata):
        width, about, config = node(), metadata(), table()
        about.ref_type, about.object_type = dict, list
        width._val, width._parent, width._metadata = 128, config, about
        config._content, config._parent, config._metadata = {"ch": width}, None, about
        checkpoint = {
            "state_dict": TENSORS, "epoch": 3, "callbacks": {callback: {"best": torch.tensor(1.0)}},
            "hyper_parameters": config, "score": np.float64(1.5), "place": PurePosixPath("a/b"), "counts": counts,
            "optimizer_states": [{"state": {0: {"step": torch.tensor(5)}}, "param_groups": [{"betas": (0.5, 0.9)}]}],
        }  # fmt: skip
        torch.save(checkpoint, tmp_path / "last.ckpt")
    found = read_weights(str(tmp_path / "last.ckpt"))
    same(found.tensors, {
        **{f"state_dict.{name}": value for name, value in TENSORS.items()},
        "optimizer_states.0.state.0.step": torch.tensor(5),
    })  # fmt: skip
    assert found.settings == {"ch": 128}


def test_settings_are_those_given_then_those_beside_then_those_inside(tmp_path):
    path = tmp_path / "vq.pt"
    torch.save({"model": TENSORS, "args": argparse.Namespace(codebook_size=7, names=("a", None))}, path)
    assert read_weights(str(path)).settings == {"codebook_size": 7, "names": ["a", None]}
    (tmp_path / "other.yaml").write_text("model: {target: taming.VQModel, params: {n_embed: 9, day: 2021-01-01}}")
    wanted = {"model": {"target": "taming.VQModel", "params": {"n_embed": 9, "day": "2021-01-01"}}}
    assert read_weights(str(path)).settings == wanted
    (tmp_path / "vq.yaml").write_text("own: 1")
    assert read_weights(str(path)).settings == {"own": 1}
    assert read_weights(str(path), config=str(tmp_path / "other.yaml")).settings == wanted
    with pytest.raises(SmaltiError, match="revision main has no effect"):
        read_weights(str(path), revision="main")


def test_flax_in_pieces_and_its_numbers(tmp_path):
    whole = torch.randn(4, 3)
    pieces = {"0": whole.reshape(-1)[:5], "1": whole.reshape(-1)[5:]}
    tree = {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 4, "1": 3}, "chunks": pieces}, "step": 3, "b": None}
    (tmp_path / "flax_model.msgpack").write_bytes(flax_bytes({"params": tree, "none": torch.zeros(0, 2)}))
    same(read_weights(str(tmp_path)).tensors, {"params.a": whole, "none": torch.zeros(0, 2)})


def test_only_what_is_needed_is_fetched(tmp_path, monkeypatch):
    write(tmp_path, "safetensors")
    (tmp_path / "config.json").write_text('{"a": 1}')
    fetched = []
    names = ["model.safetensors", "pytorch_model.bin", "config.json", "modeling.py", "x/config.json", "c[1].pt"]

    class Hub:
        def list_repo_files(self, name, revision):
            assert (name, revision) == ("owner/name", "v1")
            return names

    def download(name, *, revision, allow_patterns):
        fetched.append(sorted(allow_patterns))
        return str(tmp_path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = read_weights("owner/name", revision="v1")
    same(found.tensors, TENSORS)
    assert found.settings == {"a": 1}
    torch.save(TENSORS, "c[1].pt")
    same(read_weights("owner/name/c[1].pt", revision="v1").tensors, TENSORS)
    assert fetched == [["config.json", "model.safetensors"], ["c[[]1].pt", "config.json"]]
    with pytest.raises(SmaltiError, match=r"owner/name has no file 'x\.pt'; give one that it has"):
        read_weights("owner/name/x.pt", revision="v1")
    names[:] = ["a.ckpt", "b.ckpt", "README.md"]
    with pytest.raises(SmaltiError, match=r"give one, as owner/name/NAME: a\.ckpt, b\.ckpt"):
        read_weights("owner/name", revision="v1")
    assert len(fetched) == 2


@pytest.mark.parametrize("name", ["none.pt", "/no/where", "", "a/b/c\0", "x" * 5000, "here/none.pt", "../none"])
def test_what_is_nowhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    with pytest.raises(SmaltiError, match="no such folder|no weights"):
        read_weights(name)
