"""Files of attackers: one line, exit status 1, nothing runs, and no memory is taken for what they claim."""

import builtins
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import time
import zipfile
from collections import OrderedDict

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.interop import shells
from smalti.interop.weights import read_weights

from .foreign import Calls, flax_bytes, pickled, safetensors_bytes, torch_zip

GLOBALS = {
    "posix.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Calls(eval, f"open({mark!r}, 'w')"),
    "builtins.exec": lambda mark: Calls(exec, f"open({mark!r}, 'w')"),
    "io.open": lambda mark: Calls(open, mark, "w"),
    "subprocess.Popen": lambda mark: Calls(subprocess.Popen, ["touch", mark]),
    "builtins.getattr": lambda mark: Calls(getattr, Calls(__import__, "os"), "system"),
    "torch.hub.load": lambda mark: Calls(torch.hub.load, mark, "x"),
    "torch.storage._load_from_bytes": lambda mark: Calls(torch.storage._load_from_bytes, b"x"),
}


@pytest.fixture
def refuses(tmp_path):
    """Refused in one short line, soon and in 100 MB, without a marker file."""
    mark = tmp_path / "mark"

    def check(path, match, **options):
        known = set(torch.serialization.get_safe_globals())
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with pytest.raises(SmaltiError, match=match) as caught:
            read_weights(str(path), **options)
        assert time.process_time() - start < 2.0  # of what is most work; machines differ
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
        assert not mark.exists()
        assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300
        assert set(torch.serialization.get_safe_globals()) == known

    return check


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", GLOBALS)
def test_what_a_pickle_would_call_is_named(name, new, tmp_path, refuses):
    value = {"weight": torch.ones(2), "x": [GLOBALS[name](str(tmp_path / "mark"))]}
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    refuses(tmp_path / "a.pt", f"it names '{name}', which is neither a tensor nor known to be harmless; nothing of it")


def by_hand(mark):
    """Pickles that reach a function by other instructions."""
    command = f"touch {mark}".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    short = b"\x8c\x05posix\x8c\x06system"
    return {
        "INST": b"\x80\x02(" + text + b"iposix\nsystem\n.",
        "OBJ": b"\x80\x02(cposix\nsystem\n" + text + b"o.",
        "protocol 0": b"cposix\nsystem\n(S'touch " + mark.encode() + b"'\ntR.",
        "STACK_GLOBAL": b"\x80\x02" + short + b"\x93" + text + b"\x85R.",
        "in pieces": b"\x80\x02X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93" + text + b"\x85R.",
        "EXT1": b"\x80\x02\x82\x01" + text + b"\x85R.",
        "PERSID": b"\x80\x02Pposix\n.",
        "BINPERSID": b"\x80\x02" + text + b"Q.",
        "BUILD": b"\x80\x02ctorch._utils\n_rebuild_parameter\n}X\x01\x00\x00\x00aK\x01sb.",
        "setstate": b"\x80\x02cbuiltins\nobject\n)\x81}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsb" + text + b"b.",
        "another name": b"\x80\x02c__builtin__\neval\n" + text + b"\x85R.",
        "memo": b"\x80\x02h\x07.",
        "nothing": b"\x80\x02.",
        "a long text": b"\x80\x02X\xff\xff\xff\x7f" + command,
        "NEWOBJ_EX": b"\x80\x02cbuiltins\nobject\n)}\x92.",
    }


@pytest.mark.parametrize("way", by_hand(""))
def test_other_ways_to_code(way, tmp_path, refuses):
    data = by_hand(str(tmp_path / "mark"))[way]
    path = tmp_path / "a.pt"
    torch_zip(data, path)
    refuses(path, r"a\.pt")
    path.write_bytes(data)
    refuses(path, r"a\.pt")
    path.write_bytes(pickled(0x1950A86A20F9469CFC6C) + pickled(1001) + data)
    refuses(path, r"a\.pt")


def test_a_pickle_within_a_pickle_is_text(tmp_path):
    torch.save({"w": torch.ones(1), "config": {"x": "cposix\nsystem\n"}}, tmp_path / "a.pt")
    assert read_weights(str(tmp_path / "a.pt")).settings == {"x": "cposix\nsystem\n"}


@pytest.mark.parametrize("name", sorted(shells.SHELLS))
def test_a_shell_does_nothing(name, tmp_path):
    """Called, made anew, given a state: a name in the list is never the thing itself."""
    place, _, last = name.rpartition(".")
    made = f"c{place}\n{last}\n".encode()
    text = b"X\x04\x00\x00\x00mark"
    torch_zip(b"\x80\x02(" + made + made + text + b"\x85R" + made + b")\x81" + b"t.", tmp_path / "a.pt")
    with pytest.raises(SmaltiError, match="holds no tensors"):
        read_weights(str(tmp_path / "a.pt"))
    assert not hasattr(builtins, "mark")


def test_nothing_in_the_lists_can_do_harm():
    """What PyTorch opens itself are tensors and their parts, dicts, a set, and the bytes of a text."""
    assert all(stand_in in (shells.Shell, shells._table, OrderedDict) for stand_in, _ in shells.STAND_INS)
    functions = {name for name in shells.TENSORS if not name.startswith("torch.") or "._" in name}
    assert functions == {"collections.OrderedDict", "collections.Counter", "builtins.set", "_codecs.encode",
                         "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"}  # fmt: skip


def bombs():
    """Pickles that ask for far more than their length."""
    ordered = b"ccollections\nOrderedDict\n"
    doubled = b"\x80\x02)" + b"".join(b"q%c0h%ch%c\x86" % (n, n, n) for n in range(200)).replace(b"0h", b"h")
    pairs = b"](" + b"".join(b"M%c%cK\x00\x86" % (n % 256, n // 256) for n in range(20_000)) + b"eq\x00"
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00X\x05\x00\x00\x00utf-8q\x01"
    state = b"}(" + b"".join(b"M%c%cK\x00" % (n % 256, n // 256) for n in range(20_000)) + b"uq\x00"
    return {
        "a key that doubles": doubled + b"}" + b"h\xc7K\x01s.",
        "copies of a list": b"\x80\x02" + pairs + b"(" + (ordered + b"h\x00\x85R") * 1000 + b"t.",
        "copies of a text": b"\x80\x02" + text + b"(" + b"c_codecs\nencode\nh\x00h\x01\x86R" * 1000 + b"t.",
        "copies of a state": b"\x80\x02" + state + b"(" + (ordered + b")Rh\x00b") * 1000 + b"t.",
        "a deep list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "a deep tuple as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
        "a list of itself": b"\x80\x02]q\x00h\x00a.",
        "a list that doubles": b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(60)) + b".",
        "a place in the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "a long stack": b"\x80\x02(" + b"N" * 300_000 + b"\x85" * 8000 + b"t.",
        "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
        "long names": b"\x80\x02}X" + struct.pack("<I", 1 << 19) + b"a" * (1 << 19) + b"](" + b"}" * 9000 + b"es.",
        "settings that double": b"\x80\x02}X\x06\x00\x00\x00config]q\x00"
        + b"".join(b"](" + b"h%c" % n * 200 + b"eq%c" % (n + 1) for n in range(10))
        + b"s.",
    }


@pytest.mark.parametrize("bomb", bombs())
def test_bombs(bomb, tmp_path, refuses):
    torch_zip(bombs()[bomb], tmp_path / "a.pt")
    refuses(tmp_path / "a.pt", r"a\.pt")


def test_a_long_pickle_is_not_read(tmp_path, refuses):
    torch_zip(b"\x80\x02" + b"N" * (1 << 22), tmp_path / "a.pt")
    refuses(tmp_path / "a.pt", "its data.pkl has 4,194,306 bytes, of which 4,194,304 are read")


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_zips_that_are_not_of_torch_save(tmp_path, refuses):
    path = tmp_path / "a.pt"
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    refuses(path, "a TorchScript archive is a program, which is not run")
    torch_zip(pickled({}), path, constants__pkl="", **{"constants.pkl": ""})
    refuses(path, "a TorchScript archive")
    torch_zip(pickled({}), path, kind=zipfile.ZIP_DEFLATED, data__0=bytes(1 << 24))
    refuses(path, "in it is packed")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", pickled(Calls(os.system, "x")))
    refuses(path, "a zip that torch.save did not write")
    torch.save({"w": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:100], whole[: len(whole) // 2], whole + b"x", whole[100:]):
        path.write_bytes(data)
        refuses(path, r"a\.pt")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (torch.zeros(2).to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (torch.zeros(2, dtype=torch.complex64), "torch.ComplexFloatStorage"),
        (torch.zeros(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (Calls(torch._utils._rebuild_qtensor, 0), "torch._utils._rebuild_qtensor"),
        (torch.zeros(2, dtype=torch.uint16), "torch.uint16"),
        (torch.zeros(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
    ],
)
def test_other_tensors(value, name, tmp_path, refuses):
    torch.save({"x": value}, tmp_path / "a.pt")
    refuses(tmp_path / "a.pt", f"it holds '{name}': only plain tensors are read; convert to float32 first")


def tensor_by_hand(storage, size, stride, offset=0):
    """What _rebuild_tensor_v2 gets, as a pickle that says what it likes."""

    class Stored:
        def __init__(self, numbers):
            self.numbers = numbers

    class Writer(pickle._Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", value.numbers) if isinstance(value, Stored) else None

    with io.BytesIO() as file:
        call = Calls(torch._utils._rebuild_tensor_v2, Stored(storage), offset, size, stride, False, OrderedDict())
        Writer(file, 2).dump({"w": call})
        return file.getvalue()


@pytest.mark.parametrize(
    "claim",
    [(4, (10**6, 10**6), (0, 0)), (4, (2**62,), (0,)), (10**12, (10**12,), (1,)), (4, (5,), (1,)), (-4, (4,), (1,)),
     (4, (4,), (1,), 10**9), (4, (4,), (1,), -4), (4, (-1,), (1,)), (4, (4,), (-1,)), (4, (4, 1), (1,)),
     (400, (400,), (1,)), (4, (2**40,) * 3, (0,) * 3)],
)  # fmt: skip
def test_tensors_larger_than_what_is_stored(claim, tmp_path, refuses):
    data = tensor_by_hand(*claim)
    torch_zip(data, tmp_path / "a.pt", data__0=bytes(16))
    refuses(tmp_path / "a.pt", r"a\.pt")
    keys = pickled(["0"])
    storage = struct.pack("<q", 4) + bytes(16)
    older = pickled(0x1950A86A20F9469CFC6C) + pickled(1001) + pickled({}) + data + keys
    (tmp_path / "a.pt").write_bytes(older + storage)
    refuses(tmp_path / "a.pt", r"a\.pt")


def test_headers_of_safetensors(tmp_path, refuses):
    path = tmp_path / "model.safetensors"
    for header, body, match in [
        ({"w": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}, b"abcd", "cut off"),
        ({"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}, b"abcd", "cut off"),
        ({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"abcd", "'w' is of type F8_E4M3; convert"),
        ({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"abcdefgh", "'w' is of type C64; convert"),
        ({"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"a", "F4|cut off"),
        ({}, b"", "holds no tensors"),
    ]:
        path.write_bytes(safetensors_bytes(header, body))
        refuses(path, match)
    with path.open("wb") as file:  # a header as long as the file says
        file.write(struct.pack("<Q", 1 << 33) + b"{")
        file.truncate(1 << 34)
    refuses(path, "no header of its length")


def test_flax_that_lies(tmp_path, refuses):
    import msgpack

    def array(shape, kind="float32", data=bytes(16), code=1):
        return msgpack.packb({"a": msgpack.ExtType(code, msgpack.packb((shape, kind, data)))})

    path = tmp_path / "flax_model.msgpack"
    good = flax_bytes({"a": torch.ones(4)})
    deep = b"\x81\xa1a" * 500 + b"\xc0"
    many = {str(number): {str(inner): 1 for inner in range(400)} for number in range(200)}
    for data, match in [
        (array((10**6, 10**6)), "has 16 bytes"),
        (array((2**62, 4)), "has 16 bytes"),
        (array((-1, -4)), "of shape"),
        (array((4,), "float8_e4m3fn"), "an array of type 'float8_e4m3fn'; convert to float32 first"),
        (array((4,), "object"), "an array of type 'object'"),
        (array(4), "flax_model"),
        (array((2, 1), code=2), "extension type 2"),
        (deep, "flax_model"),
        (msgpack.packb({"a" * 900: {"b" * 900: {"c": 1}}}), "too many values, nested too deeply"),
        (msgpack.packb(many), "more than 65,536 entries"),
        (b"\xdf\xff\xff\xff\xff" + bytes(1000), "damaged"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "damaged"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "damaged"),
        (good[:-1], "damaged"),
        (good + b"\xc0", "damaged"),
        (msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 10**12}, "chunks": {}}}), "do not fit"),
        (msgpack.packb({"a": 1}), "holds no tensors"),
    ]:
        path.write_bytes(data)
        refuses(path, match)


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system ['touch MARK']", "a: !!python/name:os.system", "!!python/module:os",
     "a: !!python/object/new:os.system [touch MARK]", "a: &x [*x]", "a: &a [1]\nb: [*a, *a]",
     "a: &a {b: 1}\nc: {<<: *a}", "[" * 20_000, "a: " + "{b: " * 10_000, "- " * 20_000, "? " * 20_000, "a: 2021-99-99",
     "a: " + "9" * 10_000, "{[a]: {}: 1}", "%YAML 9.9\n---\na: 1", "\x00", "a: \ud800", "x", "- 1", "a: 1\n" * 20_000,
     "--- 1\n--- 2", "'" * 9_999, "a: !!int x"],
)  # fmt: skip
def test_settings_are_read_as_data(text, tmp_path, refuses):
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pt")
    path = tmp_path / "model.yaml"
    path.write_text(text.replace("MARK", str(tmp_path / "mark")), errors="surrogatepass")
    refuses(tmp_path / "a.pt", r"model\.yaml")
    refuses(tmp_path / "a.pt", r"model\.yaml", config=str(path))


def test_a_target_is_a_text(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pt")
    settings = {"target": "os.system", "params": {"command": f"touch {tmp_path}/mark"}, "_target_": "os.system"}
    for name in ("a.yaml", "config.json"):
        (tmp_path / name).write_text(json.dumps(settings))
        assert read_weights(str(tmp_path / "a.pt"), config=str(tmp_path / name)).settings == settings
    assert not (tmp_path / "mark").exists()


def test_what_is_no_weights_at_all(tmp_path, refuses):
    path = tmp_path / "a.ckpt"
    for data, match in [
        (b"", "is empty; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer: fetch the file"),
        (b"<!DOCTYPE html>", "begins with b'<!DOCTYP': neither safetensors, nor of torch.save, nor of Flax"),
        (b"x", "neither safetensors"),
        (b"\x80", "damaged"),
        (pickled({"a": 1}, 4), "its pickle has FRAME, which torch.save does not write"),
        (b"PK", "damaged"),
        (b"PK\x05\x06" + bytes(18), "a zip that torch.save did not write"),
        (bytes(257) + b"ustar" + bytes(300), "is a tar"),
    ]:
        path.write_bytes(data)
        refuses(path, match)
        refuses(tmp_path, match)
    path.unlink()
    refuses(tmp_path, r"holds no weights \(")
    os.mkfifo(path)
    refuses(path, "no regular file")
    refuses(tmp_path, "no regular file")
    refuses("/dev/zero", "no regular file")
    path.unlink()
    path.symlink_to(path)
    refuses(tmp_path, "cannot read|does not exist")
