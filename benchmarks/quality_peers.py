"""The peers of quality.py, each as somebody who knows the package would use it: a plain network or the package's own.

All of them may fold pixels into channels at both ends (`fold`), run their convolutions in bf16 (`bf16`), and have the
width, batch and learning rate that did best on the validation split: `python benchmarks/quality.py --tune`.
"""

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sampling import dalle_pytorch
from torch import Tensor, nn

from smalti.recipes import dvae


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is tuned on the validation split; what a peer has no use for stays as it is.

    Attributes:
        width: channels of the hidden layers.
        fold: pixels folded into channels before the first convolution, and back after the last.
        batch: images a step.
        rate: the highest learning rate.
        bf16: autocast of the convolutions.
        code_dim: D.
        annealed: our schedule of the temperature, or the package's constant (DALLE-pytorch).
        cosine: compare directions (vector-quantize-pytorch).
        kl: weight of the KL per dimension at the end of the run (DALLE-pytorch).
    """

    width: int = 96
    fold: int = 1
    batch: int = 8
    rate: float = 1e-3
    bf16: bool = False
    code_dim: int = 16
    annealed: bool = True
    cosine: bool = False
    kl: float = 0.0


class Peer(nn.Module, ABC):
    """A model of a peer: its loss while training, its codes and reconstructions afterwards.

    Args:
        settings: see `Settings`.
        size: H and W.
        stride: pixels per code in both directions.
        codebook_size: K.
    """

    def __init__(self, settings: Settings, size: int, stride: int, codebook_size: int):
        super().__init__()
        self.settings, self.codebook_size = settings, codebook_size
        self.fold, self.unfold = nn.PixelUnshuffle(settings.fold), nn.PixelShuffle(settings.fold)
        self.channels, self.size = 3 * settings.fold**2, size // settings.fold
        self.halvings = round(math.log2(stride / settings.fold))

    @abstractmethod
    def loss(self, images: Tensor, progress: float) -> Tensor:
        """What is minimised, of images (B, 3, H, W) in [0, 1], at a part of the run in [0, 1)."""

    @abstractmethod
    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions (B, 3, H, W) and codes of images (B, 3, H, W), in eval mode."""

    def autocast(self) -> AbstractContextManager:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16 and self.training)


class Block(nn.Module):
    """The residual block of the VQ-VAE's authors."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width // 2, 3, padding=1), nn.ReLU(), nn.Conv2d(width // 2, width, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class PlainVectorQuantize(Peer):
    """vector-quantize-pytorch between strided 4x4 convolutions and two residual blocks.

    Its documentation's best: codebook by k-means, dead codes restarted, the rotation where the package chooses it.
    """

    def __init__(self, settings: Settings, size: int, stride: int, codebook_size: int):
        from vector_quantize_pytorch import VectorQuantize

        super().__init__(settings, size, stride, codebook_size)
        width, dim = settings.width, settings.width if settings.cosine else settings.code_dim
        widths = [width if last else width // 2 for last in [False] * (self.halvings - 1) + [True]]
        down, before = [], self.channels
        for after in widths:
            down += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU()]
            before = after
        self.encoder = nn.Sequential(
            *down,
            nn.Conv2d(width, width, 3, padding=1),
            Block(width),
            Block(width),
            nn.ReLU(),
            nn.Conv2d(width, dim, 1),
        )
        up, before = [], width
        for after in [*reversed(widths[:-1]), self.channels]:
            up += [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1)]
            before = after
        self.decoder = nn.Sequential(nn.Conv2d(dim, width, 3, padding=1), Block(width), Block(width), *up)
        way = {"use_cosine_sim": True, "codebook_dim": settings.code_dim} if settings.cosine else {}
        self.quantizer = VectorQuantize(
            dim, codebook_size, kmeans_init=True, threshold_ema_dead_code=2, accept_image_fmap=True, **way
        )

    def both(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with self.autocast():
            features = self.encoder(self.fold(images * 2 - 1))
        latents, codes, commitment = self.quantizer(features.float())
        with self.autocast():
            return self.unfold(self.decoder(latents)).float(), codes, commitment

    def loss(self, images: Tensor, progress: float) -> Tensor:
        made, _, commitment = self.both(images)
        return F.mse_loss(made, images * 2 - 1) + commitment.sum()

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        made, codes, _ = self.both(images)
        return made / 2 + 0.5, codes


class DiffusersVQModel(Peer):
    """diffusers' `VQModel` with one layer a block and without attention, which CPUs could not pay for."""

    def __init__(self, settings: Settings, size: int, stride: int, codebook_size: int):
        from diffusers import VQModel

        super().__init__(settings, size, stride, codebook_size)
        levels = self.halvings + 1
        self.model = VQModel(
            in_channels=self.channels,
            out_channels=self.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(settings.width * min(2, 1 + level) for level in range(levels)),
            layers_per_block=1,
            latent_channels=settings.code_dim,
            num_vq_embeddings=codebook_size,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )

    def loss(self, images: Tensor, progress: float) -> Tensor:
        target = images * 2 - 1
        with self.autocast():
            features = self.model.encode(self.fold(target)).latents
        latents, codebook_loss, _ = self.model.quantize(features.float())
        with self.autocast():
            made = self.unfold(self.model.decode(latents, force_not_quantize=True).sample)
        return F.mse_loss(made.float(), target) + codebook_loss

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.encode(self.fold(images * 2 - 1)).latents
        latents, _, (_, _, codes) = self.model.quantize(features)
        return self.unfold(self.model.decode(latents, force_not_quantize=True).sample) / 2 + 0.5, codes


class DallePytorch(Peer):
    """DALLE-pytorch's `DiscreteVAE` with two residual blocks, and with our annealing: the package has none."""

    def __init__(self, settings: Settings, size: int, stride: int, codebook_size: int):
        dalle_pytorch()  # its stand-ins for what it does not need
        from dalle_pytorch import DiscreteVAE

        super().__init__(settings, size, stride, codebook_size)
        self.temperature = dvae().model.bottleneck["temperature"]
        self.model = DiscreteVAE(
            image_size=self.size,
            channels=self.channels,
            num_layers=self.halvings,
            num_tokens=codebook_size,
            codebook_dim=settings.code_dim,
            num_resnet_blocks=2,
            hidden_dim=settings.width,
            normalization=((0.5,) * self.channels, (0.5,) * self.channels),
        )

    def loss(self, images: Tensor, progress: float) -> Tensor:
        self.model.kl_div_loss_weight = self.settings.kl * progress / images.numel()  # of a sum over the batch
        temperature = self.temperature(int(progress * 1000), 1000) if self.settings.annealed else None
        with self.autocast():
            loss = self.model(self.fold(images), return_loss=True, temp=temperature)
        assert isinstance(loss, Tensor)
        return loss

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.model.get_codebook_indices(self.fold(images))
        return self.unfold(self.model.decode(codes)) / 2 + 0.5, codes


PEERS: dict[str, type[Peer]] = {
    "vector-quantize-pytorch": PlainVectorQuantize,
    "diffusers": DiffusersVQModel,
    "DALLE-pytorch": DallePytorch,
}
TRIALS: dict[str, list[dict[str, int | float | bool]]] = {  # one after the other, each from the best before it
    "vector-quantize-pytorch": [
        {}, {"width": 64}, {"width": 128}, {"bf16": True}, {"cosine": True}, {"batch": 16}, {"rate": 2e-3},
        {"rate": 4e-3}, {"fold": 1},
    ],
    "diffusers": [{"width": 32}, {"width": 64}, {"bf16": True}, {"rate": 2e-3}],
    "DALLE-pytorch": [
        {"width": 64, "code_dim": 128, "rate": 2e-3}, {"bf16": True}, {"annealed": False}, {"width": 96},
        {"code_dim": 256}, {"rate": 4e-3}, {"kl": 0.05}, {"fold": 1},
    ],
}  # fmt: skip
