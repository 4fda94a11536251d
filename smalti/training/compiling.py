"""Networks that PyTorch compiles for their training, for `--compile`."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from smalti.errors import SmaltiError, reason

BACKEND = "inductor"  # of `torch.compile`


def compile_networks(networks: Iterable[nn.Module]) -> None:
    """Compile modules in place, at their next call. The names of their state stay; copies of them are not compiled.

    What was compiled for earlier runs of this process is dropped: PyTorch compiles one function a few times only.
    """
    torch.compiler.reset()
    for network in networks:
        network.compile(backend=BACKEND)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """A block in which networks are compiled.

    Raises:
        SmaltiError: there is no compiler, or it failed.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    try:
        with warnings.catch_warnings():  # PyTorch looks at the gradient of what the decoder is given
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            yield
    except TorchDynamoException as error:
        cause = reason(getattr(error, "inner_exception", error))
        what = f"--compile: PyTorch cannot compile the networks here ({cause})"
        raise SmaltiError(f"{what}; leave --compile out") from error
