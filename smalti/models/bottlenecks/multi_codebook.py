"""Multi-codebook quantizers, several codes at each grid position: what residual and product quantizers share."""

from collections.abc import Mapping
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
        self.quantizers = nn.ModuleList(construct(VectorQuantizer, options, "quantizer") for _ in range(num_codebooks))

    def grid_shape(self, h: int, w: int) -> tuple[int, ...]:
        """(q, h, w)."""
        return (self.num_codebooks, h, w)

    @property
    def members(self) -> list[VectorQuantizer]:
        """The quantizers, in order."""
        return cast(list[VectorQuantizer], list(self.quantizers))

    def update(self) -> dict[str, Tensor]:
        """Move all codebooks; see `Codebook.update`."""
        reports = [quantizer.update() for quantizer in self.members]
        return {name: torch.stack([report[name] for report in reports]).sum() for name in reports[0]}

    def _output(self, features: Tensor, latents: Tensor, outputs: list[BottleneckOutput]) -> BottleneckOutput:
        """The output of all codebooks from that of each: codes side by side, penalties averaged."""
        codes = torch.stack([output.codes for output in outputs], dim=1)  # pyright: ignore[reportArgumentType]
        means = {
            name: torch.stack([output.penalties[name] for output in outputs]).mean() for name in outputs[0].penalties
        }
        return BottleneckOutput(latents, codes, self.uniform_kl(features), means)
