"""Adversarial training: the discriminator, its optimiser, and its adaptive weight."""

import torch
from torch import Tensor

from smalti import processes
from smalti.models.discriminator import PatchDiscriminator, discriminator_loss, generator_loss, lecam_penalty
from smalti.models.features import random_windows
from smalti.training.experiment import PhotoConfig
from smalti.training.losses import passed_once
from smalti.training.state import load_moments, moments_of, prefixed, under

LARGEST_WEIGHT = 1e4  # of the adaptive weight, as in VQGAN
EPSILON = 1e-4
USUAL_DECAY = 0.99  # of the moving averages of judgements, as in LeCAM


class Adversary:
    """A discriminator and its optimiser; it has no effect on the decoder before `adversarial_start`."""

    def __init__(self, config: PhotoConfig, channels: int, device: str):
        rate = config.discriminator_learning_rate
        assert config.adversarial_start is not None and config.discriminator_width and config.discriminator_window
        assert rate and config.lecam_weight is not None
        self.weight, self.lecam_weight = config.adversarial_weight, config.lecam_weight
        self.start, self.window = config.adversarial_start, config.discriminator_window
        self.model = PatchDiscriminator(channels, width=config.discriminator_width).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, betas=(0.5, 0.9))
        self.usual = torch.zeros(2, device=device)  # mean judgement of images, and of what the decoder makes
        self.judged: list[Tensor] = []  # the same of each batch of this step

    def loss(self, images: Tensor, made: Tensor, others: Tensor, last: Tensor, progress: float) -> dict[str, Tensor]:
        """Accumulate the discriminator's gradient on one batch and return the decoder's adversarial term.

        Args:
            images: real ones (B, C, H, W).
            made: reconstructions, with gradient.
            others: the rest of the decoder's loss, a scalar.
            last: the decoder's last weights, where the two gradients are compared.
            progress: the part of the run that is over.

        Returns:
            "adversarial": the term to add, scaled so that the norm of its gradient at `last` is `adversarial_weight`
            times that of `others` (arXiv:2012.09841, eq. 7); "discriminator": its own loss, without gradient.
        """
        if progress < self.start:
            return {"adversarial": others.new_zeros(()), "discriminator": others.new_zeros(())}
        real, fake = random_windows(self.window, images, made)
        self.model.requires_grad_(False)
        term = passed_once(generator_loss(self.model(fake)), made)
        pull, push = (
            processes.mean_over(torch.autograd.grad(part, last, retain_graph=True)[0]).norm() for part in (others, term)
        )
        weight = (pull / (push + EPSILON)).clamp(max=LARGEST_WEIGHT).detach()
        self.model.requires_grad_(True)
        of_real, of_fake = self.model(real), self.model(fake.detach())
        own = discriminator_loss(of_real, of_fake)
        (own + self.lecam_weight * lecam_penalty(of_real, of_fake, *self.usual)).backward()
        self.judged.append(torch.stack([of_real.mean(), of_fake.mean()]).detach().float())
        return {"adversarial": self.weight * weight * term, "discriminator": own.detach()}

    def step(self) -> None:
        """Optimiser step of the discriminator, on all batches since the last; called after each of the decoder."""
        if not self.judged:
            return
        processes.average_gradients(self.model.parameters())
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= len(self.judged)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        judged = processes.mean_over(torch.stack(self.judged).mean(0))
        self.usual = self.usual.lerp(judged, 1 - USUAL_DECAY)
        self.judged = []

    def state(self) -> dict[str, Tensor]:
        """State for the checkpoint."""
        moments = moments_of(self.model, self.optimizer)
        return prefixed("model", self.model.state_dict()) | prefixed("optimizer", moments) | {"usual": self.usual}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""
        self.model.load_state_dict(under(state, "model"))
        load_moments(self.model, self.optimizer, under(state, "optimizer"))
        self.usual = state["usual"].to(self.usual.device)
