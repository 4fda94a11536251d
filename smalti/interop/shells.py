"""What a pickle may name: what tensors are made of, and classes of other projects, each opened as an empty `Shell`.

The projects are never imported. A name that does not stand here is refused; the lists are literal, and nothing adds to
them.
"""

from collections import OrderedDict
from typing import Any


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


_NUMBERS = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_TYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
TENSORS = frozenset({  # PyTorch opens these itself
    "collections.OrderedDict", "collections.Counter", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter", "torch.Size", "torch.device", "builtins.set", "_codecs.encode",
    *(f"torch.{name}Storage" for name in _NUMBERS), *(f"torch.{name}" for name in _TYPES),
})  # fmt: skip
_CALLBACKS = (
    "model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping", "timer.Timer",
    "lr_monitor.LearningRateMonitor", "progress.tqdm_progress.TQDMProgressBar",
)  # fmt: skip
SHELLS = frozenset({
    # modules that were pickled whole: OpenAI's dVAE
    "dall_e.encoder.Encoder", "dall_e.encoder.EncoderBlock", "dall_e.decoder.Decoder", "dall_e.decoder.DecoderBlock",
    "dall_e.utils.Conv2d", "functools.partial",
    *(f"torch.nn.modules.{name}" for name in (
        "container.Sequential", "container.ModuleList", "container.ModuleDict", "conv.Conv2d", "pooling.MaxPool2d",
        "upsampling.Upsample", "activation.ReLU", "linear.Identity")),
    # what Lightning keeps beside the weights
    *(f"pytorch_lightning.callbacks.{name}" for name in _CALLBACKS),
    *(f"lightning.pytorch.callbacks.{name}" for name in _CALLBACKS),
    # settings
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "omegaconf.nodes.StringNode", "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode", "omegaconf.nodes.BooleanNode", "argparse.Namespace", "typing.Any",
    "pathlib.Path", "pathlib.PurePosixPath", "pathlib.PosixPath", "pathlib.WindowsPath", "datetime.timedelta",
    # numbers of numpy; types as values
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype", "numpy.ndarray", "numpy.float64", "numpy.float32",
    "numpy.int64", "numpy.int32", "numpy.bool_",
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool", "object")),
})  # fmt: skip
TABLES = {  # dicts of other kinds
    "collections.defaultdict": _table,
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
    "lightning_fabric.utilities.data.AttributeDict": OrderedDict,
    "lightning.fabric.utilities.data.AttributeDict": OrderedDict,
}
KNOWN = TENSORS | SHELLS | TABLES.keys()
STAND_INS = [*((Shell, name) for name in sorted(SHELLS)), *((table, name) for name, table in TABLES.items())]
