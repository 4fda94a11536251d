"""A prior with its tokenizer: samples codes and decodes them to images."""

from collections.abc import Sequence
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.generate.tokenizer import Tokenizer, open_tokenizer
from smalti.images.masks import to_grid
from smalti.images.reading import Images, to_images, to_pil
from smalti.priors.code_model import CodeModel
from smalti.priors.sampling import Progress
from smalti.shapes import check_shape

Prompt = str | Sequence[str] | None


def as_prompts(prompt: Prompt) -> list[str]:
    """One prompt, several, or none, as a list."""
    return [prompt] if isinstance(prompt, str) else list(prompt or [])


class Generator:
    """Samples codes from a prior and decodes them with its tokenizer.

    Raises:
        SmaltiError: the prior was trained with another tokenizer.
    """

    def __init__(self, model: CodeModel, tokenizer: Tokenizer):
        model.config.check_tokenizer(tokenizer.source_hash)
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def from_pretrained(cls, prior: str, *, tokenizer: str | None = None, device: str = "cpu") -> Self:
        """Load a prior (a folder, or owner/name on the hub) and its tokenizer, by default from where the prior says."""
        model = CodeModel.from_pretrained(prior, device=device).use_tokenizer(tokenizer)
        return cls(model, open_tokenizer(model.config, device))

    def __call__(
        self, prompt: Prompt = None, num: int = 1, *, seed: int = 0, guidance: float = 1.0, temperature: float = 1.0
    ) -> list[Image.Image]:
        """`num` images of a prompt, or of each of several prompts; see `sample`."""
        codes = self.sample(prompt, num, seed=seed, guidance=guidance, temperature=temperature)
        return to_pil(self.tokenizer.decode(codes))

    def sample(
        self,
        prompt: Prompt = None,
        num: int = 1,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample codes, (prompts * num, h, w) int64; what is not said here is said by `Prior.sample`.

        A prompt is a text, for a prior with text, or a label, for a prior with labels; several are sampled `num` times
        each; None samples without a condition. To inpaint an image, give what `kept` has of it.

        Raises:
            SmaltiError: an unknown label, an empty or too long text, or a prompt for a prior without a condition.
        """
        prompts = as_prompts(prompt)
        if guidance != 1 and self.model.prior.conditions.count:
            if not prompts:
                raise SmaltiError(f"guidance {guidance} has no effect without a prompt; give one, or leave it out")
            if not self.model.config.condition_dropout:
                raise SmaltiError(f"guidance {guidance} needs a prior trained with condition_dropout; this had none")
        condition = self.condition(prompts)
        return self.model.prior.sample(
            num * max(1, len(prompts)),
            None if condition is None else condition.repeat_interleave(num, dim=0),
            generator=torch.Generator(device=self.model.device).manual_seed(seed),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=guidance,
            known=known,
            mask=mask,
            steps=steps,
            progress=progress,
        )

    def prompt(self, text: str | None, label: str | None) -> str | None:
        """The one of both that this prior takes; None where it is not given.

        Raises:
            SmaltiError: the other one is given.
        """
        config = self.model.config
        if text is not None and config.text is None:
            raise SmaltiError(f"this prior takes no text; {'give a label' if config.labels else 'leave it out'}")
        if label is not None and not config.labels:
            raise SmaltiError(f"this prior takes no label; {'give a text' if config.text else 'leave it out'}")
        return label if text is None else text

    def condition(self, prompts: Sequence[str]) -> Tensor | None:
        """What the prior takes for some prompts; for none of them the empty condition (1, ...).

        Raises:
            SmaltiError: an unknown label, an empty or too long text, a prompt for a prior without a condition, or none
                for one that has always seen one.
        """
        config, device = self.model.config, self.model.device
        if prompts and not self.model.prior.conditions.count:
            raise SmaltiError(f"this prior takes no label and no text, but was given {prompts[0]!r}; leave it out")
        if self.model.prior.conditions.count and not prompts and not config.condition_dropout:
            raise SmaltiError("this prior was trained with condition_dropout 0 and needs a prompt; give one")
        if config.labels:
            return torch.tensor(config.classes(prompts) if prompts else [-1], device=device)
        if self.model.text is None or config.text is None:
            return None
        return (self.model.text(prompts) if prompts else torch.full((1, config.text.length), -1)).to(device)

    def kept(self, image: Images, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The codes (h, w) of an image and which of them are kept, (h, w) bool: `known` and `mask` of `sample`.

        Args:
            image: of the size that the prior was trained on.
            mask: (H, W) bool, True where the image is kept.

        Raises:
            SmaltiError: an image or a mask of another size.
        """
        height, width = self.tokenizer.preprocessing.size
        images = torch.stack(to_images(image, self.tokenizer.preprocessing.reading))
        check_shape(images, "B C H W", "the known image", B=1, H=height, W=width)
        check_shape(mask, "H W", "the mask", H=height, W=width)
        return self.tokenizer.encode(images)[0], to_grid(mask.bool(), self.model.config.grid, self.tokenizer.beside)
