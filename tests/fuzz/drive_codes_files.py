"""Mutated files of codes and latents, npz and parquet: read whole and held against their model, or one clear error."""

import io
import json
import zipfile

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import torch

from smalti.apps.encodedfile import read_encoded, write_encoded
from smalti.apps.encodedrecord import EncodedFile, check_fits

from ..codec.conftest import save_model
from .evil import VALUES, changed_value
from .harness import changed_bytes

SHORT = 50
SIZES = [(13, 9), (8, 8), (16, 5)]
TYPES = ["u2", ">u2", "u4", "u1", "i8", "f4", "f8", "c8", "M8[s]", "?", "O", "U3", "V4", "u2,u2"]


def prepare(folder):
    """(model, folder, good files of codes, latents and pooled latents in both formats)."""
    model = save_model(folder / "model")
    codes = model.encode_many([torch.rand(3, *size) for size in SIZES])
    latents = model.encode_latents_many([torch.rand(3, *size) for size in SIZES])
    about = {"names": ["a.png", "b/c.png", "d"], "sizes": SIZES, "model_hash": model.source_hash}
    about["labels"] = {"class": ["x", "y", "x"]}
    files = {
        "codes": EncodedFile(kind="codes", values=[own.codes for own in codes], codebook_size=37, **about),
        "latents": EncodedFile(kind="latents", values=[own.latents for own in latents], **about),
        "pooled": EncodedFile(
            kind="latents", values=[own.latents.mean((1, 2)) for own in latents], pool="mean", **about
        ),
    }
    found = []
    for name, file in files.items():
        for suffix in ("npz", "parquet"):
            path = folder / f"{name}.{suffix}"
            write_encoded(path, file)
            found.append((suffix, path.read_bytes()))
            use(model, path)
    return model, folder, found


def attempt(state, rng):
    """A mutant of one of them: described, read, and held against the model."""
    model, folder, files = state
    suffix, good = files[rng.integers(len(files))]
    if rng.random() < 0.3:
        data = changed_bytes(good, rng, front=len(good))
    else:
        data = changed_npz(good, rng) if suffix == "npz" else changed_parquet(good, rng)
    path = folder / f"mutant.{suffix}"
    path.write_bytes(data)
    return use(model, path)


def use(model, path) -> str:
    """Describe and read a file, and decode the first image if it is small."""
    file = read_encoded(path, model.source_hash)
    file.describe()
    for index in range(min(4, len(file.values))):
        if np.prod(file.shapes[index]) < 1 << 20:
            file.values[index]
    if file.pool != "none" or not len(file.values):
        return "reads"
    check_fits(file, model, most_pixels=1 << 12)
    (model.decode if file.kind == "codes" else model.decode_latents)(file.values[0][None], file.sizes[0])
    return "decodes"


def changed_npz(good: bytes, rng) -> bytes:
    """Members with other headers, names, sizes, values; bombs that zip well."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    place = int(rng.integers(len(members)))
    name, data = members[place]
    match int(rng.integers(0, 8)):
        case 0:
            members.append((name, data))
        case 1:
            del members[place]
        case 2:
            other = ["x.npy", "codes/.npy", "codes/\x00.npy", "size/a.png", "codes/../../x.npy", ".npy", "codes/a.png"]
            members[place] = (other[rng.integers(len(other))], data)
        case 3:
            members[place] = (name, array(rng))
        case 4:  # a header that lies
            shape = [(10**6, 10**6), (2**62,), (-1,), (3, 3), (), (0,), (1,) * 40][rng.integers(7)]
            dtype = TYPES[rng.integers(len(TYPES))]
            text = repr({"descr": dtype, "fortran_order": bool(rng.random() < 0.5), "shape": shape})
            text = [text, "(" * 900, "{" * 100, text + "#" * 3000, "[]"][rng.integers(5)].ljust(100) + "\n"
            head = b"\x93NUMPY" + bytes([int(rng.integers(1, 4)), 0]) + len(text).to_bytes(2, "little")
            members[place] = (name, head + text.encode() + data[128:])
        case 5:  # a bomb
            dtype, count = ["u2", "f4", "U9"][rng.integers(3)], int(rng.integers(1, 1 << 18))
            members[place] = (name, saved(np.zeros(count, dtype)))
        case 6:
            members[place] = (name, changed_bytes(data, rng, front=128))
        case _:
            members += [(f"codes/{index}.npy", data) for index in range(int(rng.integers(1, 300)))]
    with io.BytesIO() as file:
        others = [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
        method = others[rng.integers(3)] if rng.random() < 0.1 else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, data in members:
                archive.writestr(name, data)
        made = file.getvalue()
    return changed_bytes(made, rng, front=len(made)) if rng.random() < 0.1 else made


def array(rng) -> bytes:
    """Of any type, of the shape of codes, sizes or nothing."""
    dtype, shape = TYPES[rng.integers(len(TYPES))], [(), (2,), (3,), (2, 2), (4, 4, 3)][rng.integers(5)]
    values = np.zeros(shape, dtype)
    if values.dtype.kind in "uif":
        values[...] = [0, 1, 5, 37, 60_000, np.nan, -1, 1.9][rng.integers(8 if values.dtype.kind == "f" else 4)]
    return saved(values)


def saved(values: np.ndarray) -> bytes:
    """As npy."""
    with io.BytesIO() as file:
        np.save(file, values, allow_pickle=True)
        return file.getvalue()


def changed_parquet(good: bytes, rng) -> bytes:
    """Other metadata, columns, types, counts; columns of one value that pack well."""
    table = parquet.read_table(io.BytesIO(good))
    about = json.loads(table.schema.metadata[b"smalti"])
    names = table.column_names
    column, rows = names[rng.integers(len(names))], len(table)
    match int(rng.integers(0, 6)):
        case 0:
            about = changed_value(about, rng)
        case 1:
            table = table.drop_columns([column])
        case 2:
            table = table.append_column(column, table[column])
        case 3:
            other = names[rng.integers(len(names))]
            table = table.set_column(names.index(column), column, table[other])
        case 4:
            choices = [
                arrow.array([None] * rows), arrow.array([[2**31 - 1] * 2] * rows, arrow.list_(arrow.int32())),
                arrow.array([0] * rows, arrow.int32()), arrow.array([2**31 - 1] * rows, arrow.int32()),
                arrow.array([[0] * 200_000] * rows, arrow.list_(arrow.uint16())), arrow.array(["a"] * rows),
                arrow.array([[1.0]] * rows, arrow.list_(arrow.float32())), arrow.array([b"a\x00"] * rows),
                arrow.array([[None]] * rows, arrow.list_(arrow.uint16())), arrow.array(["x" * 100_000] * rows),
            ]  # fmt: skip
            table = table.set_column(names.index(column), column, choices[rng.integers(len(choices))])
        case _:
            table = arrow.concat_tables([table] * int(rng.integers(2, 2000)))
    text = json.dumps(about) if rng.random() < 0.9 else str(VALUES[rng.integers(len(VALUES))])
    table = table.replace_schema_metadata({"smalti": text.encode("utf-8", "surrogatepass")})
    with io.BytesIO() as file:
        kind = ["snappy", "gzip", "zstd", "none"][rng.integers(4)]
        parquet.write_table(table, file, compression=kind, row_group_size=int(rng.integers(1, 4000)))
        return file.getvalue()
