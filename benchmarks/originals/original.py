"""What is asked of a model of another project, and how far its codes are from others."""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests/interop"))

import golden  # noqa: E402


@dataclass
class Original:
    """A model of another project: its module, the names of its file, and its answers."""

    original: str  # package version or repository@commit, and class
    network: nn.Module
    codes: Callable[[Tensor], Tensor]  # images (B, 3, H, W) in [0, 1] -> (B, h, w)
    pixels: Callable[[Tensor], Tensor] | None  # codes (B, h, w) -> images in [0, 1], not clamped
    features: Callable[[Tensor], Tensor]  # images -> what chooses the code: (B, D, h, w)
    gap: Callable[[Tensor], Tensor]  # features (M, D) -> (M,): how far each is from another code
    settings: dict[str, Any] = field(default_factory=dict)
    name: Callable[[str], str] = str  # of the module -> of the file
    extras: dict[str, list[int]] = field(default_factory=dict)  # in the file, of no use to an image
    codebook: str | None = None  # name in the module
    unit: bool = False  # rows of length 1
    write: Callable[["Original", dict[str, Tensor], Path], None] | None = None  # the file as it is published
    scales: dict[str, float] = field(default_factory=dict)  # of tensors of the file

    def fill(self) -> dict[str, float]:
        """Give the module the weights that its file's names determine; the scales of the codebook."""
        shapes = {key: list(tensor.shape) for key, tensor in self.network.state_dict().items()}
        scales = dict(self.scales)
        if self.codebook:
            scales[self.name(self.codebook)] = 0.0 if self.unit else 1.0
        for _ in range(2):  # with the features that the first pass gives, the codebook has their length
            tensors = {
                key: torch.from_numpy(golden.filled(self.name(key), shape, scales)) for key, shape in shapes.items()
            }
            self.network.load_state_dict(tensors)
            self.network.eval()
            if not self.codebook or self.unit:
                break
            features = self.features(torch.from_numpy(golden.images()))
            scales[self.name(self.codebook)] = round(features.square().sum(1).mean().sqrt().item(), 4)
        return scales

    def file(self) -> dict[str, list[int]]:
        shapes = {self.name(key): list(tensor.shape) for key, tensor in self.network.state_dict().items()}
        return {**shapes, **self.extras}

    def margin(self, images: Tensor) -> Tensor:
        """The gap of every code, (B, h, w)."""
        features = self.features(images).double().movedim(1, -1)
        return self.gap(features.flatten(0, -2)).view(features.shape[:-1])


def best_less_second(scores: Tensor) -> Tensor:
    best = scores.topk(2).values
    return best[:, 0] - best[:, 1]


def by_distance(embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
    return lambda features: best_less_second(-torch.cdist(features, embedding.weight.double()).square())


def by_direction(embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
    unit = nn.functional.normalize
    return lambda features: best_less_second(unit(features, dim=1) @ unit(embedding.weight.double(), dim=1).T)


def by_product(embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
    return lambda features: best_less_second(features @ embedding.weight.double().T)


def signed(images: Tensor) -> Tensor:
    return 2 * images - 1


def unsigned(pixels: Tensor) -> Tensor:
    return (pixels + 1) / 2


@contextlib.contextmanager
def stubs(modules: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Modules of this content in the place of what the originals import and inference does not use."""
    before = {name: sys.modules.get(name) for name in modules}
    for name, content in modules.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(content)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class Module(nn.Module):
    """In the place of a LightningModule."""

    def __init__(self) -> None:
        super().__init__()


def no_loss(_: Any) -> nn.Module:
    return nn.Module()
