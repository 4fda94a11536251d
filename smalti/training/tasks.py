"""Training tasks: a model, its batches, its loss, and hooks before and after a step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from smalti.data.batches import Batches, Pixels
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.images.contact_sheets import before_after
from smalti.images.pixels import binarize, to_float
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.models.features import perceptual_distance
from smalti.pretrained import Pretrained
from smalti.training.adversary import Adversary
from smalti.training.experiment import Experiment
from smalti.training.losses import Loss, autoencoder_loss
from smalti.training.state import under
from smalti.training.usage import CodeUsage

NUM_SAMPLES = 16


class Task(ABC):
    """A model to train; the loop calls the methods in this order."""

    @property
    @abstractmethod
    def model(self) -> Pretrained:
        """The model in training."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[Tensor]:
        """The batches of steps `start`, `start` + 1, ...: a function of (seed, rank, step)."""

    @abstractmethod
    def before_step(self, step: int) -> dict[str, float]:
        """Apply schedules; returns the values for the log."""

    @abstractmethod
    def loss(self, batch: Tensor, step: int) -> Loss:
        """The loss of one batch; randomness only from torch's global generator, which the loop seeds."""

    @abstractmethod
    def after_step(self) -> str | None:
        """Update statistics (codebook, usage); returns the text of an alarm, if any."""

    @abstractmethod
    def report(self) -> dict[str, float]:
        """More values for the log."""

    @abstractmethod
    def picture(self, model: Pretrained) -> Image.Image:
        """A sample picture made by `model` (the averaged weights)."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """State for the checkpoint besides the model and the optimiser."""

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""


class AutoencoderTask(Task):
    """Train an autoencoder with any bottleneck.

    Args:
        experiment: the recipe's result.
        device: where the model goes.
        progress: show a bar while reading images.
    """

    def __init__(self, experiment: Experiment, device: str, progress: bool):
        self.experiment, self.device = experiment, device
        preprocessing = experiment.model.preprocessing
        size, channels = preprocessing.image_size, preprocessing.channels
        self.fixed = preprocessing.binarize == "fixed"
        source = open_data(experiment.data, "train")
        self.pixels = Pixels(source, size, channels, fixed_binary=self.fixed, progress=progress)
        self.shown = self._some_images(size, channels)
        self.autoencoder = Autoencoder(experiment.model).to(device).train()
        bottleneck = self.autoencoder.bottleneck
        discrete = bottleneck if isinstance(bottleneck, DiscreteBottleneck) else None
        self.usage = CodeUsage(discrete.codebook_size, discrete.num_codebooks) if discrete else None
        self.counted: list[tuple[Tensor, int]] = []  # counts of a batch's codes, and how many they are
        photo = experiment.photo
        self.perceptual = None if photo.perceptual == "none" else perceptual_distance(photo.perceptual).to(device)
        self.adversary = Adversary(photo, channels, device) if photo.adversarial_weight else None
        self.restarted = torch.zeros(())

    @property
    def model(self) -> Autoencoder:
        """The autoencoder, on its device."""
        return self.autoencoder

    def _some_images(self, size: int, channels: int) -> Tensor:
        """Evenly spaced images for sample pictures, of the validation split if there is one."""
        try:
            source = open_data(self.experiment.data, "validation")
        except SmaltiError:
            source = open_data(self.experiment.data, "train")
        pixels = Pixels(source, size, channels, fixed_binary=self.fixed, memory_bytes=0)
        return to_float(pixels.evenly(NUM_SAMPLES))

    def batches(self, start: int) -> Iterator[Tensor]:
        """Batches of uint8 images."""
        experiment = self.experiment
        return Batches(self.pixels, experiment.batch_size, seed=experiment.seed, augment=experiment.augment).iterate(
            start * experiment.optimizer.accumulate
        )

    def before_step(self, step: int) -> dict[str, float]:
        """Beta, and the annealing of the bottleneck."""
        return {"beta": self.experiment.loss.beta(step), **self.autoencoder.bottleneck.anneal(step)}

    def loss(self, batch: Tensor, step: int) -> Loss:
        """The loss of all autoencoders, and the perceptual and adversarial terms."""
        images = to_float(batch.to(self.device, non_blocking=True))
        if self.experiment.model.preprocessing.binarize == "dynamic":
            images = binarize(images)
        loss = self._photo_loss(images, autoencoder_loss(self.autoencoder, images, self.experiment.loss, step), step)
        if loss.codes is not None:
            self.counted.append((self.autoencoder.codes_bottleneck.histogram(loss.codes), loss.codes.numel()))
        return loss

    def _photo_loss(self, images: Tensor, loss: Loss, step: int) -> Loss:
        """Add the perceptual and adversarial terms."""
        if self.perceptual is None and self.adversary is None:
            return loss
        assert loss.parameters is not None
        made, total, terms = self.autoencoder.likelihood.mean(loss.parameters, clamp=False), loss.total, {}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(made, images).mean()
            total = total + self.experiment.photo.perceptual_weight * terms["perceptual"]
        if self.adversary is not None:
            last = [weight for weight in self.autoencoder.decoder.parameters() if weight.ndim > 1][-1]
            terms |= self.adversary.loss(images, made, total, last, step)
            total = total + terms["adversarial"]
        return loss._replace(total=total, terms=loss.terms | {name: term.detach() for name, term in terms.items()})

    def after_step(self) -> str | None:
        """Update the codebook and the discriminator; count the codes."""
        if self.adversary is not None:
            self.adversary.step()
        restarted = self.autoencoder.bottleneck.update().get("restarted")
        if restarted is not None:
            self.restarted = self.restarted.to(restarted.device) + restarted
        alarms = [self.usage.observe(*counts) for counts in self.counted] if self.usage else []
        self.counted.clear()
        return next((alarm for alarm in alarms if alarm), None)

    def report(self) -> dict[str, float]:
        """Usage, perplexity, and the number of dead codes restarted since the last report."""
        if self.usage is None:
            return {}
        restarted, self.restarted = self.restarted.item(), torch.zeros(())
        return {**self.usage.report(), "restarted_codes": restarted}

    def picture(self, model: Pretrained) -> Image.Image:
        """Originals above reconstructions."""
        assert isinstance(model, Autoencoder)
        return before_after(self.shown, model.reconstruct(self.shown).cpu())

    def state(self) -> dict[str, Tensor]:
        """The usage window and the discriminator."""
        window = {f"usage.{name}": value for name, value in self.usage.state().items()} if self.usage else {}
        adversary = (
            {f"adversary.{name}": value for name, value in self.adversary.state().items()} if self.adversary else {}
        )
        return {"restarted": self.restarted.cpu(), **window, **adversary}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the usage window and the discriminator."""
        self.restarted = state["restarted"]
        if self.usage:
            self.usage.load(under(state, "usage"))
        if self.adversary:
            self.adversary.load(under(state, "adversary"))
