"""Multi-codebook quantizers, several codes at each grid position: what residual and product quantizers share."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from smalti.configs import construct
from smalti.errors import SmaltiError
from smalti.models.bottlenecks.base import BottleneckOutput, DeterministicQuantizer
from smalti.models.bottlenecks.vector import VectorQuantizer


class MultiCodebookQuantizer(DeterministicQuantizer):
    """q vector quantizers, each with K code vectors of its own `code_dim`; codes are (B, q, h, w).

    `quantizer` holds the other options of every `VectorQuantizer`.
    """

    code_axes = "B q h w"
    in_words = VectorQuantizer.in_words._replace(latent_space="discrete: q codes at each position of a grid, each of K")

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """The bits shared out among 3 codebooks, or 2, or 1, whichever number divides them."""
        count = next(count for count in (3, 2, 1) if bits % count == 0)
        return {"num_codebooks": count, "codebook_size": 2 ** (bits // count)}

    def __init__(self, num_codebooks: int, codebook_size: int, code_dim: int, quantizer: Mapping[str, Any] | None):
        super().__init__()
        if num_codebooks < 1:
            raise SmaltiError(f"num_codebooks must be at least 1, not {num_codebooks}")
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        options = {**(quantizer or {}), "codebook_size": codebook_size, "code_dim": code_dim}
        where = "bottleneck.quantizer"
        self.quantizers = nn.ModuleList(construct(VectorQuantizer, options, where) for _ in range(num_codebooks))
        for member in self.members:
            member.codebook.said = self.members[0].codebook.said  # one warning for all

    def grid_shape(self, h: int, w: int) -> tuple[int, ...]:
        """(q, h, w)."""
        return (self.num_codebooks, h, w)

    @property
    def members(self) -> list[VectorQuantizer]:
        """The quantizers, in order."""
        return cast(list[VectorQuantizer], list(self.quantizers))

    def load_vectors(self, vectors: Tensor) -> None:
        """Put code vectors (q, K, D) of one's own in, D of each; see `Codebook.load_vectors`."""
        if len(vectors) != self.num_codebooks:
            raise SmaltiError(f"expected vectors of {self.num_codebooks} codebooks, got {len(vectors)}")
        for quantizer, own in zip(self.members, vectors, strict=True):
            quantizer.load_vectors(own)

    def update(self) -> dict[str, Tensor]:
        """Move all codebooks; see `Codebook.update`."""
        return _together([quantizer.update() for quantizer in self.members], torch.sum)

    def _output(self, features: Tensor, latents: Tensor, outputs: list[BottleneckOutput]) -> BottleneckOutput:
        """The output of all codebooks from that of each: codes side by side, penalties averaged."""
        codes = torch.stack([output.codes for output in outputs if output.codes is not None], dim=1)
        penalties = _together([output.penalties for output in outputs], torch.mean)
        return BottleneckOutput(latents, codes, self.uniform_kl(features), penalties)


def _together(numbers: list[dict[str, Tensor]], function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {name: function(torch.stack([each[name] for each in numbers])) for name in numbers[0]}
