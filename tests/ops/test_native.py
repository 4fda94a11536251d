"""The kernels are found, chosen by the environment, their absence is no error, and nothing unfit gets through to C."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.ops import native

PANEL = 8  # of the portable kernels
CALLS = {  # sizes and numbers of a call that each kernel takes
    "pack": {"C": 9, "D": 3, "P": 2},
    "nearest": {"N": 2, "K": 5, "D": 3, "bytes": 1},
    "gumbel": {"N": 2, "K": 5, "D": 9, "P": 2, "temperature": 0.5, "seed": 1, "hard": 0},
    "gumbel_backward": {"N": 2, "K": 9, "D": 9, "P": 2, "W": 16, "temperature": 0.5, "seed": 1, "hard": 0},
    "gumbel_noise": {"N": 2, "K": 3, "seed": 1},
    "write_intervals": {"N": 2},
    "end_stream": {},
    "read_symbols": {"N": 3, "K": 5, "M": 3},
    "adaptive_codes": {"N": 2, "I": 2, "S": 6143, "M": 7 * 4 * 32, "size": 5, "lines": 4, "decoding": 1},
    "decisions": {"N": 2, "K": 5, "L": 3},
    "read_codes": {"N": 2, "K": 5, "F": 9, "M": 16, "offset": 0.5},
    "raster": {"O": 2} | {name: native.LAYOUT[name] for name in ("OPERATION", "TASK")},
}


def arguments_of(name):
    signature, _, where = native.SIGNATURES[name].partition(" where ")
    words = [native.Argument(word) for word in signature.split()]
    return [word for word in words if word.kind != "size"], where


def values_of(name):
    """Arrays of zeros, of the sizes that CALLS says, and its numbers."""
    sizes = CALLS[name] | {"PANEL": PANEL}
    return [
        torch.zeros([int(dim) if dim.isdigit() else sizes[dim] for dim in word.dims], dtype=native.TYPES[word.kind])
        if word.dims
        else sizes[word.name]
        for word in arguments_of(name)[0]
    ]


def unfit(word, value, words, where):
    """Values that an argument does not take, by what is wrong with them."""
    if word.kind == "float":
        return {"text": "1", "nothing": None}
    if word.kind in ("int", "word"):
        none = {"too large": 1 << 63, "fraction": 1.5, "nothing": None}
        return none if word.kind == "word" else none | {"negative": -1}
    other = torch.float64 if value.dtype != torch.float64 else torch.float32
    found = {"dtype": value.to(other), "axis": value[None], "device": value.to("meta"), "number": 3, "list": [1.0]}
    for axis, dim in enumerate(word.dims):
        settled = len(dim) > 1 or dim.isdigit() or sum(other.dims.count(dim) for other in words) > 1
        if settled or re.search(rf"\b{dim} ==|== {dim}\b", where):
            found[f"too short {axis}"] = value.narrow(axis, 0, value.shape[axis] - 1).contiguous()
        if settled:
            found[f"too long {axis}"] = torch.cat([value, value.narrow(axis, 0, 1)], axis)
    if value.numel() and value.element_size() > 1:
        room = bytearray(value.numel() * value.element_size() + 1)
        found["unaligned"] = torch.frombuffer(room, dtype=value.dtype, offset=1).view(value.shape)
        found["unaligned numpy"] = found["unaligned"].numpy()
        found["other bytes"] = value.numpy().astype(value.numpy().dtype.newbyteorder())
    if value.numel() > 1:
        found["strided"] = torch.stack([value, value], -1)[..., 0]
        found["strided numpy"] = found["strided"].numpy()
    found["dtype of numpy"] = found["dtype"].numpy()
    if word.written:
        found["read-only"] = value.numpy().copy()
        found["read-only"].flags.writeable = False
    if not word.optional:
        found["nothing"] = None
    return found


def test_no_kernel_escapes():
    assert CALLS.keys() == native.SIGNATURES.keys()


@pytest.mark.parametrize("name", CALLS)
def test_what_is_unfit_does_not_reach_c(name):
    kernels = native.load("portable")
    if kernels is None:
        pytest.skip("smalti was installed without a C compiler")
    call, values = getattr(kernels, name), values_of(name)
    call(*values)
    call(*(value.numpy() if isinstance(value, torch.Tensor) else value for value in values))
    words, where = arguments_of(name)
    for index, word in enumerate(words):
        for fault, value in unfit(word, values[index], words, where).items():
            with pytest.raises(SmaltiError, match=f"{name}: "):
                call(*values[:index], value, *values[index + 1 :])
                pytest.fail(f"{name} took {word.word} with the fault {fault!r}")
    with pytest.raises(TypeError, match=name):
        call(*values[1:])


def test_conditions_hold_or_nothing_is_called():
    kernels = native.load("portable")
    if kernels is None:
        pytest.skip("smalti was installed without a C compiler")
    pack = values_of("pack")
    pack[1] = pack[1][:1]  # a panel too few
    with pytest.raises(SmaltiError, match=r"pack: D > 0, P == panels\(C\)"):
        kernels.pack(*pack)
    gumbel = values_of("gumbel")
    gumbel[1] = None  # soft, without the packed codebook
    with pytest.raises(SmaltiError, match="gumbel: .*packed"):
        kernels.gumbel(*gumbel)
    kernels.gumbel(*gumbel[:-2], True, 1)
    nearest = [value[:, :0].contiguous() if getattr(value, "ndim", 0) == 2 else value for value in values_of("nearest")]
    with pytest.raises(SmaltiError, match="nearest: D > 0, 0 < K < 1 << 31 cannot be false, where N = 2, D = 0, K = 5"):
        kernels.nearest(*nearest)


def test_a_message_names_the_kernel_the_argument_and_the_value():
    kernels = native.load("portable")
    if kernels is None:
        pytest.skip("smalti was installed without a C compiler")
    features, codebook, bias, codes, bytes_too = values_of("nearest")
    with pytest.raises(SmaltiError) as error:
        kernels.nearest(features, codebook.double(), bias, codes, bytes_too)
    assert str(error.value) == "nearest: codebook:f4[K,D] cannot be torch.float64 (5, 3) on cpu, where N = 2, D = 3"
    with pytest.raises(SmaltiError, match=r"nearest: bias:f4\[K\] cannot be torch.float32 \(4,\) on cpu, where N"):
        kernels.nearest(features, codebook, bias[:4], codes, bytes_too)


@pytest.mark.parametrize("other", [{"OPERATION": 21}, {"SOURCES": 1}])
def test_a_library_of_another_layout_is_refused_with_one_warning(other, monkeypatch):
    if native.load("portable") is None:
        pytest.skip("smalti was installed without a C compiler")
    found = native._layout_of
    monkeypatch.setattr(native, "_layout_of", lambda *which: found(*which) | other)
    native.load.cache_clear()
    try:
        with pytest.warns(UserWarning, match="compiled from other sources and is not used: run") as warned:
            assert native.load("portable") is None
        assert native.load("portable") is None and len(warned) == 1
    finally:
        native.load.cache_clear()


def test_a_library_without_a_layout_is_refused():
    class Old:
        pass

    assert native._layout_of(Old(), "portable") == {}  # pyright: ignore[reportArgumentType]


def test_they_were_compiled_here():
    """A machine without a compiler may skip this; one with a compiler may not."""
    if not native.LIBRARY.exists():
        pytest.skip("smalti was installed without a C compiler")
    assert native.load("portable") is not None


def test_off_means_off(monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", "off")
    assert native.kernels() is None


def test_an_unknown_name_is_a_one_line_error(monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", "sse9")
    with pytest.raises(SmaltiError, match="SMALTI_KERNELS is 'sse9'; it can be off, auto, avx512"):
        native.kernels()


def test_without_a_library_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    native.load.cache_clear()
    try:
        assert all(native.load(variant) is None for variant in native.VARIANTS)
    finally:
        native.load.cache_clear()


def test_a_library_that_cannot_be_loaded_is_one_warning_and_plain_torch(monkeypatch, tmp_path):
    (tmp_path / "native.so").write_bytes(b"of another machine")
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "native.so")
    native.load.cache_clear()
    try:
        with pytest.warns(UserWarning, match="the native kernels cannot be loaded .*plain PyTorch is used") as warned:
            assert all(native.load(variant) is None for variant in native.VARIANTS)
        assert len(warned) == 1
    finally:
        native.load.cache_clear()


@pytest.mark.parametrize("kind", ["tensor", "numpy"])
def test_a_temporary_lives_until_the_kernel_returns(kind):
    """Given as an expression: nobody else holds it, and what is made meanwhile must not take its place."""
    kernels = native.load("portable")
    if kernels is None:
        pytest.skip("smalti was installed without a C compiler")
    features, codes = torch.randn(500, 3), torch.empty(500, dtype=torch.int64)
    plain = (lambda value: value.numpy()) if kind == "numpy" else (lambda value: value)
    kernels.nearest(plain(features.clone()), plain(features.clone()), plain(features.square().sum(1) / -2), codes, 1)
    assert torch.equal(codes, torch.arange(500))


def test_the_example_of_the_docs_is_a_kernel(tmp_path, monkeypatch):
    """Its C compiles where the page says, and its row of the table is its border."""
    compiler, folder = shutil.which("cc"), native.SOURCES
    if compiler is None:
        pytest.skip("there is no C compiler")
    page = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text(encoding="utf-8")
    (source,), (row,) = re.findall(r"```c\n(.*?)```", page, re.S), re.findall(r'```text\n"(\w+)": "(.*)",\n```', page)
    for path in folder.glob("*.[ch]"):
        shutil.copy(path, tmp_path)
    (tmp_path / "square_norms.h").write_text(source)
    text = (tmp_path / "all.h").read_text()
    (tmp_path / "all.h").write_text(
        text.replace('#include "nearest.h"', '#include "nearest.h"\n#include "square_norms.h"')
    )
    options = ["-O1", "-std=gnu11", "-fno-math-errno", "-fPIC", "-shared", "-w", "-DSMALTI_SOURCES=1"]
    command = [compiler, *options, tmp_path / "kernels_portable.c", "-lm", "-o", tmp_path / "native.so"]
    subprocess.run(command, check=True)
    monkeypatch.setitem(native.SIGNATURES, *row)
    library = ctypes.CDLL(str(tmp_path / "native.so"))
    kernel = native._checked(row[0], library["smalti_square_norms_portable"], native._layout_of(library, "portable"))
    rows, out = torch.randn(7, 37), torch.empty(7)
    kernel(rows, out)
    torch.testing.assert_close(out, rows.double().square().sum(1).float())
    with pytest.raises(SmaltiError, match="square_norms: out"):
        kernel(rows, out[:6])
