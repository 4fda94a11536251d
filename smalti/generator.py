"""A prior with its tokenizer: draws images."""

from collections.abc import Sequence
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.images import Images, to_pil
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel


class Generator:
    """Draws codes from a prior and lets the tokenizer's decoder paint them.

    Args:
        model: the prior.
        tokenizer: the autoencoder whose codes it models.

    Raises:
        SmaltiError: the prior was trained with another tokenizer.
    """

    def __init__(self, model: CodeModel, tokenizer: Autoencoder):
        model.config.check_tokenizer(tokenizer.source_hash)
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def from_pretrained(cls, prior: str, *, tokenizer: str | None = None, device: str = "cpu") -> Self:
        """Load a prior and its tokenizer.

        Args:
            prior: the prior's folder, or owner/name on the hub.
            tokenizer: where its tokenizer is now; by default where it was.
            device: where to put both.
        """
        model = CodeModel.from_pretrained(prior, device=device)
        return cls(model, Autoencoder.from_pretrained(tokenizer or model.config.tokenizer, device=device))

    def __call__(self, label: str | Sequence[str] | None = None, num: int = 1, *, seed: int = 0) -> list[Image.Image]:
        """Draw `num` images, of one label or of each of several labels."""
        return to_pil(self.tokenizer.decode(self.draw(label, num, seed=seed)))

    def draw(
        self,
        label: str | Sequence[str] | None = None,
        num: int = 1,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        known: Images | None = None,
        mask: Tensor | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Draw codes, (num * labels, h, w) int64; see `Prior.sample`.

        Args:
            label: of a conditional prior: one, or several; each is drawn `num` times.
            num: how many of each.
            seed: of the random numbers.
            temperature: 0 is greedy.
            top_k: draw from so many most likely codes only.
            top_p: draw from the smallest set of codes with this probability only.
            known: an image to complete, of the size that the prior was trained on.
            mask: (h, w) bool over the grid of codes, True where the image is kept.
            progress: show a bar.
        """
        names = [label] if isinstance(label, str) else list(label or [])
        if bool(names) != bool(self.model.config.labels):
            kind = self.model.config.label_kind
            raise SmaltiError(f"this prior needs a {kind}: --label NAME" if kind else "this prior takes no label")
        each = [name for name in names for _ in range(num)]
        classes = torch.tensor(self.model.config.classes(each), device=self.model.device) if names else None
        return self.model.prior.sample(
            num * max(1, len(names)),
            classes,
            generator=torch.Generator(device=self.model.device).manual_seed(seed),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            known=None if known is None else self.tokenizer.encode(known)[0],
            mask=mask,
            progress=progress,
        )
