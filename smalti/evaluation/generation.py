"""What gives images that nobody made: p(z) of a model, noise in place of one, a prior over codes."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from smalti.data.config import Data
from smalti.data.sources import open_data
from smalti.data.splits import Split
from smalti.generate.tokenizer import Tokenizer, open_tokenizer
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel
from smalti.training.codes import load_codes

SEED = 0  # of a prior's samples
Sampler = Callable[[Tensor], Tensor]  # images (B, C, H, W) for the places (B,) of as many images of a split


def sampler_of_model(model: Autoencoder) -> Sampler:
    """Samples z ~ p(z), decoded; of a discrete system codes from p(z). The place of the first is the seed."""
    return lambda places: model.sample(len(places), seed=int(places[0]))


def sampler_of_noise(model: Autoencoder, images: Tensor) -> Sampler:
    """Decoded noise with the mean and deviation of real latents, channel by channel: for a model without a p(z).

    Args:
        model: of any kind.
        images: (B, C, H, W), whose latents are real.
    """
    latents = model.encode_latents(images)
    mean, deviation = latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)

    def sample(places: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(places[0]))
        noise = torch.randn(len(places), *latents.shape[1:], generator=generator)
        return model.decode_latents(mean + deviation * noise.to(latents))

    return sample


def sampler_of_prior(model: CodeModel, tokenizer: Tokenizer, condition: Tensor | None = None) -> Sampler:
    """Codes of a prior, decoded; each call goes on where the one before stopped, from seed 0.

    Args:
        model: a trained prior.
        tokenizer: its own.
        condition: (N, ...) of every image of the split, for a prior with labels or text.
    """
    generator = torch.Generator(device=model.device).manual_seed(SEED)

    def sample(places: Tensor) -> Tensor:
        given = None if condition is None else condition[places].to(model.device)
        return tokenizer.decode(model.prior.sample(len(places), given, generator=generator))

    return sample


def open_sampler_of_prior(run: Path, data: Data, split: Split) -> Sampler:
    """The sampler of the prior in a folder, under the conditions of a split's images where it takes any."""
    model = CodeModel.from_pretrained(run)
    _, condition = load_codes(model.config, open_data(data, split), run, text=model.text).fixed()
    return sampler_of_prior(model, open_tokenizer(model.config), condition)
