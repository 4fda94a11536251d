"""Mutated weights of other projects: every kind of file, its pickle, its list of entries, its settings."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from unittest import mock

import torch
from safetensors.torch import save

from smalti.interop.weights import read_weights

from ..interop.foreign import flax_bytes, save_dall_e
from .evil import changed_value
from .harness import Fault, changed_bytes

SHORT = 120
TENSORS = {"encoder.conv.weight": torch.ones(3, 2), "quantize.embedding": torch.ones(5, 4).bfloat16()}
PIECES = [  # of pickles
    b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ccollections\nOrderedDict\n", b"cargparse\nNamespace\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n", b"c_codecs\nencode\n",
    b")R", b")\x81", b"}b", b"(", b"t", b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00", b"h\x01", b"r\xff\xff\xff\x7f",
    b"]", b"}", b"a", b"e", b"s", b"u", b"Q", b"J\xff\xff\xff\x7f", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"N",
    b"X\x01\x00\x00\x00a", b"2", b".", b"\x93", b"\x82\x01", b"i__main__\nx\n", b"\x8c\x01x", b"\x80\x04",
]  # fmt: skip


def prepare(folder):
    """(folder, mark, good files by name)."""
    save_dall_e(folder)
    checkpoint = {"state_dict": TENSORS, "config": {"ch": 4}, "optimizer_states": [{"state": {0: torch.ones(2)}}]}
    files = [saved(checkpoint), saved(OrderedDict(TENSORS)), saved(checkpoint, _use_new_zipfile_serialization=False)]
    files += [(folder / "encoder.pkl").read_bytes(), save(TENSORS)]
    files += [flax_bytes({"params": {"a": torch.ones(3, 2), "b": {"c": torch.ones(5)}}, "step": 3})]
    for path in folder.iterdir():
        path.unlink()
    (folder / "good.pt").write_bytes(files[0])
    return folder, folder.parent / f"{folder.name}-mark", files


def saved(value, **more):
    """As torch.save."""
    with io.BytesIO() as file:
        torch.save(value, file, **more)
        return file.getvalue()


def attempt(state, rng):
    """One of them changed, alone or beside changed settings; nothing may run, and what opens may be added up."""
    folder, mark, files = state
    good = files[rng.integers(len(files))]
    how = rng.random()
    if how < 0.15:
        return settings(folder, rng)
    if how < 0.6 and good[:2] == b"PK":
        data = changed_zip(good, rng)
    else:
        data = changed_pickle(good, rng) if how < 0.75 and good[:1] == b"\x80" else changed_bytes(good, rng, front=200)
    path = folder / "mutant.x"
    path.write_bytes(data)
    with mock.patch("os.system", lambda _: mark.touch()):
        found = read_weights(str(path))
    if mark.exists():
        raise Fault("code was run")
    if sum(tensor.numel() * tensor.element_size() for tensor in found.tensors.values()) > 64 * len(data):
        raise Fault("tensors that are larger than the file")
    sum(float(tensor.double().sum()) for tensor in found.tensors.values())
    return "opened"


def settings(folder, rng) -> str:
    """A YAML or JSON file of settings."""
    value = changed_value({"model": {"target": "os.system", "params": {"ddconfig": {"ch_mult": [1, 2]}}}}, rng)
    text = json.dumps(value, indent=1).encode("utf-8", "surrogatepass")
    if rng.random() < 0.6:
        text = changed_bytes(text, rng, front=len(text))
    path = folder / ("a.json" if rng.random() < 0.3 else "a.yaml")
    path.write_bytes(text)
    json.dumps(read_weights(str(folder / "good.pt"), config=str(path)).settings)
    return "settings"


def changed_pickle(good: bytes, rng) -> bytes:
    """A pickle with one to three pieces set in or written over."""
    changed = bytearray(good)
    for _ in range(int(rng.integers(1, 4))):
        piece = PIECES[rng.integers(len(PIECES))]
        place = int(rng.integers(2, len(changed) + 1))
        changed[place : place + len(piece) * int(rng.integers(0, 2))] = piece
    return bytes(changed)


def changed_zip(good: bytes, rng) -> bytes:
    """Another pickle, other entries, other ways to store them."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    place = next(at for at, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    name, data = entries[place]
    other = int(rng.integers(len(entries)))
    kind = zipfile.ZIP_STORED
    match int(rng.integers(0, 8)):
        case 0:
            del entries[other]
        case 1:
            entries[other] = (entries[other][0], entries[other][1][: int(rng.integers(0, 9))])
        case 2:
            entries[other] = ([name, "a/code/x.py", "a/data/0", "../x", "x"][rng.integers(5)], entries[other][1])
        case 3:
            kind = zipfile.ZIP_DEFLATED
        case 4:
            entries[place] = (name, changed_bytes(data, rng, front=len(data)))
        case 5:
            entries[place] = (name, pickle.dumps([None] * int(rng.integers(1, 9)), int(rng.integers(0, 6))))
        case _:
            entries[place] = (name, changed_pickle(data, rng))
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", kind) as archive:
            for entry in entries:
                archive.writestr(*entry)
        return file.getvalue()
