"""What a function that is called after every step of a training is told."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from smalti.pretrained import Pretrained


class Step(NamedTuple):
    """A finished step of a training."""

    step: int  # counted from 1
    terms: "dict[str, Tensor]"  # of the loss: detached scalars, still on the device; reading one waits for it
    model: "Pretrained"  # the averaged one, which is saved and measured; in training mode, to be left as it is
    record: dict[str, float] | None  # the line of metrics.jsonl that was written at this step
    picture: "Image | None"  # the sample picture that was made at this step


StepHook = Callable[[Step], object]
