"""Adversarial training: the discriminator, its optimiser, and its adaptive weight."""

import torch
from torch import Tensor

from smalti.models.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from smalti.training.experiment import PhotoConfig
from smalti.training.state import load_moments, moments_of, prefixed, under

LARGEST_WEIGHT = 1e4  # of the adaptive weight, as in VQGAN
EPSILON = 1e-4


class Adversary:
    """A discriminator and its optimiser; it has no effect on the decoder before `adversarial_start`."""

    def __init__(self, config: PhotoConfig, channels: int, device: str):
        rate = config.discriminator_learning_rate
        assert config.adversarial_start is not None and config.discriminator_width and rate
        self.weight, self.start = config.adversarial_weight, config.adversarial_start
        self.model = PatchDiscriminator(channels, width=config.discriminator_width).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, betas=(0.5, 0.9))

    def loss(
        self, images: Tensor, made: Tensor, distortion: Tensor, last: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """Accumulate the discriminator's gradient on one batch and return the decoder's adversarial term.

        Args:
            images: real ones (B, C, H, W).
            made: reconstructions, with gradient.
            distortion: the rest of the decoder's loss, a scalar.
            last: the decoder's last weights, where the two gradients are compared.
            progress: the part of the run that is over.

        Returns:
            "adversarial": the term to add, scaled so that the norm of its gradient at `last` is `adversarial_weight`
            times that of `distortion` (arXiv:2012.09841, eq. 7); "discriminator": its own loss, without gradient.
        """
        if progress < self.start:
            return {"adversarial": distortion.new_zeros(()), "discriminator": distortion.new_zeros(())}
        self.model.requires_grad_(False)
        term = generator_loss(self.model(made))
        pull = torch.autograd.grad(distortion, last, retain_graph=True)[0].norm()
        push = torch.autograd.grad(term, last, retain_graph=True)[0].norm()
        weight = (pull / (push + EPSILON)).clamp(max=LARGEST_WEIGHT).detach()
        self.model.requires_grad_(True)
        own = discriminator_loss(self.model(images), self.model(made.detach()))
        own.backward()
        return {"adversarial": self.weight * weight * term, "discriminator": own.detach()}

    def step(self) -> None:
        """Optimiser step of the discriminator; called once after every step of the decoder."""
        if any(parameter.grad is not None for parameter in self.model.parameters()):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """State for the checkpoint."""
        moments = moments_of(self.model, self.optimizer)
        return prefixed("model", self.model.state_dict()) | prefixed("optimizer", moments)

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""
        self.model.load_state_dict(under(state, "model"))
        load_moments(self.model, self.optimizer, under(state, "optimizer"))
