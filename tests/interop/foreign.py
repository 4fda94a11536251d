"""Files as other projects write them, and as attackers do."""

import contextlib
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import torch
from torch import nn

HOMES = {"Encoder": "encoder", "EncoderBlock": "encoder", "Decoder": "decoder", "DecoderBlock": "decoder",
         "Conv2d": "utils"}  # fmt: skip


@contextlib.contextmanager
def classes(*names, base=object):
    """Classes of packages that are not installed, by their full names, while a file is written."""
    made, packages = [], []
    try:
        for full in names:
            place, _, name = full.rpartition(".")
            parts = place.split(".")
            for end in range(1, len(parts) + 1):
                own = ".".join(parts[:end])
                if own not in sys.modules:
                    sys.modules[own] = types.ModuleType(own)
                    packages.append(own)
            made.append(type(name, (base,), {"__module__": place, "__qualname__": name}))
            setattr(sys.modules[place], name, made[-1])
        yield made
    finally:
        for own in packages:  # what was imported meanwhile stays: classes made anew would be others
            del sys.modules[own]


def save_dall_e(folder, new=True):
    """encoder.pkl and decoder.pkl, whole modules; returns the tensors by name."""
    tensors = {}
    names = [f"dall_e.{place}.{name}" for name, place in HOMES.items()]
    with classes(*names, base=nn.Module) as made:
        kinds = dict(zip(HOMES, made, strict=True))

        def convolution():
            layer = kinds["Conv2d"]()
            layer.w, layer.b = nn.Parameter(torch.randn(2, 3, 1, 1)), nn.Parameter(torch.randn(2))
            return layer

        for side in ("encoder", "decoder"):
            block = kinds[f"{side.title()}Block"]()
            block.id_path = nn.Identity()
            block.res_path = nn.Sequential(OrderedDict(relu_1=nn.ReLU(), conv_1=convolution()))
            whole = kinds[side.title()]()
            whole.blocks = nn.Sequential(OrderedDict(
                input=convolution(), group_1=nn.Sequential(OrderedDict(block_1=block, pool=nn.MaxPool2d(2)))
            ))  # fmt: skip
            torch.save(whole, folder / f"{side}.pkl", _use_new_zipfile_serialization=new)
            tensors |= {f"{side}.{name}": value.detach() for name, value in whole.state_dict().items()}
    return tensors


def torch_zip(pickled, path, *, kind=zipfile.ZIP_STORED, **more):
    """A file as of torch.save, of a pickle by hand and other entries."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for name, data in more.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", data)


def safetensors_bytes(header, body=b""):
    """A safetensors file by hand."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def flax_bytes(tree):
    """As `flax.serialization.msgpack_serialize` writes nested dicts of tensors."""
    import msgpack

    def packed(value):
        if isinstance(value, dict):
            return {key: packed(own) for key, own in value.items()}
        if not isinstance(value, torch.Tensor):
            return value
        data = value.contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else value.numpy().tobytes()
        name = str(value.dtype).removeprefix("torch.")
        return msgpack.ExtType(1, msgpack.packb((tuple(value.shape), name, data), use_bin_type=True))

    return msgpack.packb(packed(tree), use_bin_type=True)


class Calls:
    """An object that calls something when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickled(value, protocol=2):
    """A plain pickle."""
    with io.BytesIO() as file:
        pickle.Pickler(file, protocol).dump(value)
        return file.getvalue()
