"""The processes that train together: which one this is, and numbers that all of them know.

In one process everything here is what it is given. Imports torch on use, so that `--help` is quick.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from smalti.errors import SmaltiError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(hours=6)  # with a process that does not come: the first one may be encoding a data set
ENDED = "another process of this training has ended, and this one with it"


class PeerLost(SmaltiError):
    """A process that the others wait for has ended; it has said why, if it could."""


def world() -> int:
    """How many processes train together."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 1
    return distributed.get_world_size()


def rank() -> int:
    """Which of them this is, from 0."""
    return sys.modules["torch.distributed"].get_rank() if world() > 1 else 0


def launched() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this process writes and speaks for all: the first, by torchrun's own word before they have met."""
    return int(os.environ["RANK"]) == 0 if launched() > 1 else rank() == 0


def beside() -> int:
    """How many processes of the training share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() > 1 else 1


def part_of(batch_size: int) -> int:
    """This process's part of a batch.

    Raises:
        SmaltiError: it cannot be shared alike.
    """
    if batch_size % world():
        nearest = max(1, round(batch_size / world())) * world()
        raise SmaltiError(f"--batch_size {batch_size} is of all {world()} processes, in equal parts: give {nearest}")
    return batch_size // world()


# ------------------------------------------------------------------ numbers of all


def sum_over(tensor: "Tensor") -> "Tensor":
    """The sum of a tensor over all processes, in place."""
    import torch.distributed as distributed

    if world() > 1:
        with peers():
            distributed.all_reduce(tensor)
    return tensor


def mean_over(tensor: "Tensor") -> "Tensor":
    """The mean of a tensor over all processes, in place."""
    return sum_over(tensor).div_(world()) if world() > 1 else tensor


def least_over(tensor: "Tensor") -> "Tensor":
    """The minimum of each number over all processes, in place."""
    import torch.distributed as distributed

    if world() > 1:
        with peers():
            distributed.all_reduce(tensor, distributed.ReduceOp.MIN)
    return tensor


def gathered(numbers: "Tensor") -> "Tensor":
    """Some numbers (n,) of every process: (world, n) by rank."""
    every = numbers.new_zeros(world(), len(numbers))
    every[rank()] = numbers
    return sum_over(every)


def like_first(tensors: Iterable["Tensor"]) -> None:
    """Give tensors the values that they have in the first process."""
    import torch.distributed as distributed

    if world() > 1:
        with peers():
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


def told(value: T) -> T:
    """What the first process gives, in every one."""
    import torch.distributed as distributed

    if world() == 1:
        return value
    box = [value]
    with peers():
        distributed.broadcast_object_list(box, 0)
    return box[0]


def any_of(flag: bool) -> bool:
    """Whether a flag is set in any process, which waits for all of them."""
    import torch

    return bool(sum_over(torch.tensor(int(flag)))) if world() > 1 else flag


def mean_of_rows(rows: "Tensor") -> "Tensor":
    """The mean (...) of the rows (n, ...) of all processes, of which some may have none.

    Its gradient in a process's own rows is so scaled that the average of all processes' gradients, which
    DistributedDataParallel makes, is that of the mean.
    """
    own = rows.sum(0)
    sums = own.new_empty(own.numel() + 1)
    sums[:-1], sums[-1] = own.detach().flatten(), len(rows)
    sum_over(sums)
    total = sums[-1].clamp(min=1)
    scaled = own * (world() / total)
    return scaled + (sums[:-1].view_as(own) / total - scaled).detach()


def average_gradients(parameters: Iterable["Tensor"]) -> None:
    """Average gradients over all processes, as DistributedDataParallel does for the model that it wraps."""
    import torch

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world() > 1 and gradients:
        flat = mean_over(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])


# ------------------------------------------------------------------ meeting


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """A block in which the processes that torchrun has started know each other; the first one speaks for all.

    An error that several of them have is raised as it is in one of them, as `PeerLost` in the others. Where processes
    have met already, nothing happens.
    """
    if launched() == 1 or world() > 1:
        yield
        return
    import torch
    import torch.distributed as distributed

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        with spoken_once():
            yield
    except SmaltiError as error:
        if isinstance(error, PeerLost) or _told_before():
            raise PeerLost(ENDED) from error
        raise
    finally:
        distributed.destroy_process_group()


def _told_before() -> bool:
    """Whether another process has raised an error."""
    from torch.distributed import distributed_c10d

    try:
        return distributed_c10d._get_default_store().add("smalti/errors", 1) > 1
    except RuntimeError:  # the store was in a process that has ended
        return True


@contextlib.contextmanager
def spoken_once() -> Iterator[None]:
    """A block in which the first process alone prints what all have to say."""
    if is_first():
        yield
        return
    silent = contextlib.redirect_stdout, contextlib.redirect_stderr
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        for redirect in silent:
            stack.enter_context(redirect(nowhere))
        yield


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """A block that waits for other processes: what PyTorch says when one of them has ended is one line."""
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        if isinstance(error, DistError) or "gloo" in str(error):
            raise PeerLost(ENDED) from error
        raise


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """A block that the first process passes before the others, which then find what it has made."""
    if not is_first():
        any_of(False)
    yield
    if is_first():
        any_of(False)
