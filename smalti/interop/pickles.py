"""Files of `torch.save`, opened as data: what they name is neither imported nor called.

`torch.load(weights_only=True)` reads them, which calls a fixed set of functions of its own. Before it does, the pickle
is measured (`_measure`): it may name only what stands in `TENSORS` and `SHELLS`, and may not ask for more work than its
length warrants. A class in `SHELLS` is opened as a `Shell`, which keeps its state and does nothing. There is no option
that lets more in.
"""

import io
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.errors import SmaltiError, one_line, shown

MOST_PICKLE, MOST_WORK = 1 << 22, 1 << 21  # bytes; steps, a call counts for `CALL` of them
CALL = 32
MOST_ENTRIES, DEEPEST = 1 << 18, 64  # values in a file; levels
MAGIC = 0x1950A86A20F9469CFC6C  # begins a file of PyTorch before 1.6, which is five pickles and the numbers
OPCODES = frozenset({  # of those that `weights_only=True` reads
    "PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "BINPERSID", "APPEND", "APPENDS", "SETITEM",
    "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "NONE", "NEWFALSE", "NEWTRUE",
    "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING", "BINGET", "LONG_BINGET",
    "BINPUT", "LONG_BINPUT",
})  # fmt: skip
TAKES = {  # how many values an instruction takes from the stack, those after the mark where it is None
    "NEWOBJ": 1, "REDUCE": 1, "BUILD": 1, "APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3,
    "APPENDS": None, "SETITEMS": None, "TUPLE": None,
}  # fmt: skip
CALLS = ("NEWOBJ", "REDUCE", "BUILD")
NUMBERS = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
TYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
TENSORS = frozenset({
    "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size",
    "torch.device", "builtins.set", "_codecs.encode",
    *(f"torch.{name}Storage" for name in NUMBERS), *(f"torch.{name}" for name in TYPES),
})  # fmt: skip
SHELLS = frozenset({
    # modules that were pickled whole: OpenAI's dVAE
    *(f"dall_e.{name}" for name in ("encoder.Encoder", "encoder.EncoderBlock", "decoder.Decoder")),
    *(f"dall_e.{name}" for name in ("decoder.DecoderBlock", "utils.Conv2d")),
    "torch.nn.modules.container.Sequential", "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.ModuleDict", "torch.nn.modules.conv.Conv2d", "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample", "torch.nn.modules.activation.ReLU", "torch.nn.modules.linear.Identity",
    "functools.partial",
    # what Lightning keeps beside the weights
    *(f"{place}.{name}"
      for place in ("pytorch_lightning.callbacks", "lightning.pytorch.callbacks")
      for name in ("model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping", "timer.Timer",
                   "lr_monitor.LearningRateMonitor", "progress.tqdm_progress.TQDMProgressBar")),
    "pytorch_lightning.utilities.parsing.AttributeDict", "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    # settings
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode", "omegaconf.nodes.FloatNode", "omegaconf.nodes.BooleanNode", "typing.Any",
    "argparse.Namespace", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath",
    "datetime.datetime", "datetime.timedelta",
    # numbers of numpy, and types as values
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "numpy.float64", "numpy.float32",
    "numpy.int64", "numpy.int32", "numpy.bool_",
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool", "object")),
})  # fmt: skip
OTHER_TENSORS = re.compile(  # sparse, quantised, complex, of 8 bits
    r"torch\.(_utils|_tensor)\._rebuild_\w+|torch\.(\w+\.)*\w*(Storage|float|complex|q?u?int)\w*"
)
SETTINGS = ("hyper_parameters", "config", "args", "cfg")  # where a checkpoint keeps its own


class Shell:
    """Stands for any object of another project: keeps its state as data, and does nothing."""

    state: Any = None

    def __new__(cls, *_: Any) -> "Shell":  # noqa: D102
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Whatever it was made of."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def parts(self) -> dict:
        """Parameters, buffers and modules by name, of what was a module."""
        state = self.state if isinstance(self.state, dict) else {}
        kept = [state.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
        return {name: value for own in kept if isinstance(own, dict) for name, value in own.items()}


def _table(*_: Any) -> dict:
    """Stands for `collections.defaultdict`."""
    return OrderedDict()


STAND_INS = [(Shell, name) for name in sorted(SHELLS)] + [(_table, "collections.defaultdict")]


def read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of `torch.save`, mapped where it is a zip, and the settings that it holds as plain data.

    Raises:
        SmaltiError: it names anything but tensors and the classes in `SHELLS`, holds tensors of other types or larger
            than itself, is a TorchScript archive, packed, damaged, or asks for more work than its length warrants.
    """
    zipped = zipfile.is_zipfile(path)
    with one_line(path, f"{path} is damaged or not a file of torch.save"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if zipped:
            _measure(io.BytesIO(_pickle_in_zip(path)))
        else:
            with path.open("rb") as file:
                front = io.BytesIO(file.read(MOST_PICKLE))
            for _ in range(5):  # magic number, version, machine, the value, names of its storages
                _measure(front)
        with torch.serialization.safe_globals(STAND_INS):  # pyright: ignore[reportArgumentType]
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        tensors = _named(value)
        held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
        if sum(held.values()) > path.stat().st_size:
            raise SmaltiError("its tensors are larger than the file; copy it again")
        for name, tensor in tensors.items():
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                what = f"{shown(name)} has shape {shown(tuple(tensor.shape))}, more numbers than the file holds for it"
                raise SmaltiError(f"{what}; copy it again")
        return tensors, _settings(value)


def _pickle_in_zip(path: Path) -> bytes:
    """The bytes of data.pkl, after the entries of the zip were compared with its length."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        inner = [name.partition("/")[2] for name in names]
        if any(name == "constants.pkl" or name.startswith("code/") for name in inner):
            raise SmaltiError("a TorchScript archive is a program, which is not run; torch.save its state_dict()")
        if inner.count("data.pkl") != 1 or len(set(names)) < len(names) or len({n.split("/")[0] for n in names}) > 1:
            raise SmaltiError("a zip that torch.save did not write; give a file of torch.save or safetensors")
        packed = [entry.filename for entry in entries if entry.compress_type or entry.flag_bits & 1]
        if packed or archive.comment:
            raise SmaltiError(
                f"{shown((packed or ['its end'])[0])} is packed; torch.save stores; unpack and save it again"
            )
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise SmaltiError("its entries are longer than the file; copy it again")
        entry = entries[inner.index("data.pkl")]
        if entry.file_size > MOST_PICKLE:
            raise SmaltiError(
                f"data.pkl has {entry.file_size:,} bytes; {MOST_PICKLE:,} are read; save the state_dict alone"
            )
        return archive.read(entry)


def _measure(file: io.BytesIO) -> None:
    """Walk through a pickle without making what it describes: refuse what it may not name or do.

    The stack holds sizes, in cells that copies share: of a text its length, of a tuple, list or dict those of its parts.
    This is about what it costs to hash or to copy it, which is all that a call can do.

    Raises:
        SmaltiError: a global that is not known, an instruction of another protocol, too much work.
    """
    stack: list[list[int]] = []
    marks: list[list[list[int]]] = []
    memo: dict[int, list[int]] = {}
    work = 0
    for code, argument, _ in pickletools.genops(file):
        name = code.name
        if name in ("GLOBAL", "INST"):
            _check_name(argument)
        if name not in OPCODES:
            raise SmaltiError(f"its pickle has {name}, which torch.save does not write; save the state_dict alone")
        if name == "MARK":
            marks.append(stack)
            stack = []
        elif name.endswith("BINPUT"):
            memo[argument] = stack[-1]
        elif name.endswith("BINGET"):
            stack.append(memo[argument])
        elif name in TAKES:
            count = len(stack) if TAKES[name] is None else TAKES[name]
            taken = sum(cell[0] for cell in stack[len(stack) - count :])
            stack = marks.pop() if TAKES[name] is None else stack[: len(stack) - count]
            work += _put(stack, name, taken)
        elif name not in ("PROTO", "STOP", "BINPERSID"):
            stack.append([len(argument) if isinstance(argument, str | bytes) else 1])
        work += 1
        if work > MOST_WORK:
            raise SmaltiError("its pickle asks for too much work; save the state_dict alone")


def _put(stack: list[list[int]], name: str, taken: int) -> int:
    """What an instruction leaves on the stack for what it took from it; returns the work."""
    if "TUPLE" in name:
        stack.append([1 + taken])
        return 0
    if name in CALLS:
        stack[-1] = [1]
        return CALL + taken
    stack[-1][0] += taken
    return taken


def _check_name(argument: str) -> None:
    name = argument.replace(" ", ".", 1)
    name = name.replace("__builtin__.", "builtins.", 1) if name.startswith("__builtin__.") else name
    if name in TENSORS or name in SHELLS or name == "collections.defaultdict":
        return
    if OTHER_TENSORS.fullmatch(name):
        raise SmaltiError(f"it holds {shown(name)}: only plain tensors are read; convert to float32 first")
    what = f"it names {shown(name)}, which is neither a tensor nor known to be harmless; nothing of it was run"
    raise SmaltiError(f"{what}; save the state_dict alone")


def _named(root: Any) -> dict[str, Tensor]:
    """All tensors in dicts, lists and modules, by the keys on the way, joined by dots."""
    found: dict[str, Tensor] = {}
    rest, visited = [("", root, 0)], 0
    while rest:
        name, value, depth = rest.pop()
        visited += 1
        if visited > MOST_ENTRIES or depth > DEEPEST:
            raise SmaltiError("it is nested too deeply, or holds too many values; save the state_dict alone")
        if isinstance(value, Tensor):
            if name in found:
                raise SmaltiError(f"{shown(name)} is there twice; save the state_dict alone")
            found[name] = value.detach()
            continue
        value = value.parts() if isinstance(value, Shell) else value
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            own = [(str(key), part) for key, part in value.items() if isinstance(key, str | int)]
            rest += [(f"{name}.{key}" if name else key, part, depth + 1) for key, part in reversed(own)]
    return found


def _settings(value: Any) -> dict[str, Any]:
    """The settings in a checkpoint: what is plain data of them."""
    if not isinstance(value, dict):
        return {}
    found = [_plain(value[key]) for key in SETTINGS if key in value]
    return next((own for own in found if own and isinstance(own, dict)), {})


def _plain(value: Any, depth: int = 0) -> Any:
    """Dicts, lists, texts and numbers; None for all else. OmegaConf's nodes and namespaces are opened."""
    if isinstance(value, Shell) and isinstance(state := value.state, dict):
        value = state.get("_content", state.get("_val", state))
    if depth > 12:
        return None
    if isinstance(value, dict):
        return {key: _plain(own, depth + 1) for key, own in value.items() if isinstance(key, str) and len(value) < 1000}
    if isinstance(value, list | tuple):
        return [_plain(own, depth + 1) for own in value[:1000]]
    return value if isinstance(value, str | int | float | bool) else None
