"""Training tasks: a model, its batches, its loss, and hooks before and after a step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from smalti.data.batches import Batches, Pixels, some_images
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.images.contact_sheets import before_after
from smalti.images.pixels import model_images
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
    """A model to train; the loop calls the methods in this order. By default they do nothing."""

    @property
    @abstractmethod
    def model(self) -> Pretrained:
        """The model in training."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[Tensor]:
        """The batches of steps `start`, `start` + 1, ...: a function of (seed, rank, step)."""

    def before_step(self, step: int) -> dict[str, float]:
        """Apply schedules; returns the values for the log."""
        return {}

    @abstractmethod
    def loss(self, batch: Tensor, step: int) -> Loss:
        """The loss of one batch; randomness only from torch's global generator, which the loop seeds."""

    def after_step(self) -> str | None:
        """Update statistics (codebook, usage); returns the text of an alarm, if any."""
        return None

    def report(self) -> dict[str, float]:
        """More values for the log."""
        return {}

    @abstractmethod
    def picture(self, model: Pretrained) -> Image.Image:
        """A sample picture made by `model` (the averaged weights)."""

    def state(self) -> dict[str, Tensor]:
        """State for the checkpoint besides the model and the optimiser."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""
        assert not state


class AutoencoderTask(Task):
    """Train an autoencoder with any bottleneck.

    Args:
        experiment: the recipe's result.
        device: where the model goes.
        progress: show a bar while reading images.
    """

    def __init__(self, experiment: Experiment, device: str, progress: bool):
        self.experiment, self.device = experiment, device
        self.preprocessing = experiment.model.preprocessing
        self.pixels = Pixels(open_data(experiment.data, "train"), self.preprocessing, progress=progress)
        self.shown = self._some_images()
        self.autoencoder = Autoencoder(experiment.model).to(device).train()
        bottleneck = self.autoencoder.bottleneck
        discrete = bottleneck if isinstance(bottleneck, DiscreteBottleneck) else None
        self.usage = CodeUsage(discrete.codebook_size, discrete.num_codebooks) if discrete else None
        self.counted: list[tuple[Tensor, int]] = []  # counts of a batch's codes, and how many they are
        photo = experiment.photo
        self.perceptual = None if photo.perceptual == "none" else perceptual_distance(photo.perceptual).to(device)
        self.adversary = Adversary(photo, self.preprocessing.channels, device) if photo.adversarial_weight else None
        self.restarted = torch.zeros(())

    @property
    def model(self) -> Autoencoder:
        """The autoencoder, on its device."""
        return self.autoencoder

    def _some_images(self) -> Tensor:
        """Evenly spaced images for sample pictures, of the validation split if there is one."""
        try:
            return some_images(self.experiment.data, "validation", self.preprocessing, NUM_SAMPLES)
        except SmaltiError:
            return some_images(self.experiment.data, "train", self.preprocessing, NUM_SAMPLES)

    def batches(self, start: int) -> Iterator[Tensor]:
        """Batches of uint8 images."""
        experiment, run = self.experiment, self.experiment.run
        batches = Batches(self.pixels, run.batch_size, seed=run.seed, augment=experiment.augment)
        return batches.iterate(start * experiment.optimizer.accumulate)

    def before_step(self, step: int) -> dict[str, float]:
        """Beta, and the annealing of the bottleneck."""
        return {"beta": self._beta(step), **self.autoencoder.bottleneck.anneal(step, self.experiment.run.steps)}

    def _beta(self, step: int) -> float:
        return self.experiment.loss.beta(step, self.experiment.run.steps)

    def loss(self, batch: Tensor, step: int) -> Loss:
        """The loss of all autoencoders, and the perceptual and adversarial terms."""
        images = model_images(batch.to(self.device, non_blocking=True), self.preprocessing)
        loss = autoencoder_loss(self.autoencoder, images, self.experiment.loss, self._beta(step))
        loss = self._photo_loss(images, loss, step / self.experiment.run.steps)
        if loss.codes is not None:
            self.counted.append((self.autoencoder.codes_bottleneck.histogram(loss.codes), loss.codes.numel()))
        return loss

    def _photo_loss(self, images: Tensor, loss: Loss, progress: float) -> Loss:
        """Add the perceptual and adversarial terms."""
        if self.perceptual is None and self.adversary is None:
            return loss
        assert loss.parameters is not None
        made, total, terms = self.autoencoder.likelihood.mean(loss.parameters, clamp=False), loss.total, {}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(made, images).mean()
            assert self.experiment.photo.perceptual_weight is not None
            total = total + self.experiment.photo.perceptual_weight * terms["perceptual"]
        if self.adversary is not None:
            last = [weight for weight in self.autoencoder.decoder.parameters() if weight.ndim > 1][-1]
            terms |= self.adversary.loss(images, made, total, last, progress)
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
