"""Training tasks: a model, its batches, its loss, and hooks before and after a step."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor

from smalti import processes
from smalti.data.account import line_of
from smalti.data.batches import Batches, some_images
from smalti.data.crops import open_pixels
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.images.contact_sheets import before_after
from smalti.images.fidelity import mse, psnr_db
from smalti.images.noise import corrupt, corrupt_each
from smalti.images.pixels import model_images, to_float, to_uint8
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.models.features import check_size, perceptual_distance, random_windows
from smalti.ops import randomness
from smalti.ops.counts import perplexity, usage
from smalti.pretrained import Pretrained
from smalti.training.adversary import Adversary
from smalti.training.compiling import compile_networks
from smalti.training.experiment import Experiment, Frozen
from smalti.training.held_out import Means, held_out
from smalti.training.losses import Loss, autoencoder_loss, passed_once
from smalti.training.state import prefixed, under
from smalti.training.usage import CodeUsage

NUM_SAMPLES = 16
Model = TypeVar("Model", bound=Pretrained)


def freeze(model: Autoencoder, what: Frozen) -> None:
    """Let parts of a model stand still; a frozen discrete bottleneck gives the decoder what it gets in use.

    With the encoder the bottleneck stands still too: codes of all images stay what they are.
    """
    if what == "none":
        return
    model.bottleneck.requires_grad_(False)
    if what == "encoder":
        model.encoder.requires_grad_(False)
        model.bottleneck.train(not isinstance(model.bottleneck, DiscreteBottleneck))


class Task(ABC, Generic[Model]):
    """A model to train, on its device; the loop calls the methods in this order. By default they do nothing."""

    model: Model
    experiment: Any  # what is trained; its steps become known when a budget of minutes is measured
    phases: tuple[float, ...] = (0.0,)  # the parts of the run from which on a step takes another time
    data: dict[str, Mapping[str, Any]]  # "num_images" and "fingerprint" of each split that is used

    @abstractmethod
    def batches(self, start: int) -> Iterator[Tensor]:
        """This process's part of the batches of steps `start`, `start` + 1, ...: a function of (seed, step)."""

    def compile(self) -> None:
        """Compile the networks for the steps to come."""

    def before_step(self, step: int) -> dict[str, float]:
        """Apply schedules; returns the values for the log."""
        return {}

    @abstractmethod
    def loss(self, batch: Tensor, step: int) -> Loss:
        """The loss of one batch; random numbers of torch's global generator and `smalti.ops.randomness` only."""

    def after_step(self) -> str | None:
        """Update statistics (codebook, usage); returns the text of an alarm, if any."""
        return None

    def report(self) -> dict[str, float]:
        """More values for the log."""
        return {}

    def validate(self, model: Model) -> dict[str, float]:
        """The terms of the loss of `model` (the averaged weights, in eval mode) on what is held out, and "loss".

        Always on the same images; nothing of the training's state changes. Empty where nothing is held out.
        """
        return {}

    @abstractmethod
    def picture(self, model: Model) -> Image.Image:
        """A sample picture made by `model` (the averaged weights)."""

    def state(self) -> dict[str, Tensor]:
        """State for the checkpoint besides the model and the optimiser."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""
        assert not state


class AutoencoderTask(Task[Autoencoder]):
    """Train an autoencoder with any bottleneck."""

    def __init__(self, experiment: Experiment, device: str, progress: bool):
        self.experiment, self.device = experiment, device
        self.preprocessing = experiment.model.preprocessing
        self.model = Autoencoder(experiment.model).to(device).train()
        freeze(self.model, experiment.freeze)
        self.model.check_size(*self.preprocessing.size)  # before any image is read
        photo = experiment.photo
        check_size(photo.perceptual, self.preprocessing.size)
        self.perceptual = None if photo.perceptual == "none" else perceptual_distance(photo.perceptual).to(device)
        self.adversary = Adversary(photo, self.preprocessing.channels, device) if photo.adversarial_weight else None
        source = open_data(experiment.data, "train")
        if progress:
            print(line_of(source), file=sys.stderr)
        self.pixels = open_pixels(source, self.preprocessing, experiment.crop_area, progress=progress)
        self.data = {"train": {"num_images": len(source), "fingerprint": source.fingerprint}}
        try:
            self.shown = some_images(experiment.data, "validation", self.preprocessing, NUM_SAMPLES)
        except SmaltiError:
            self.shown = some_images(experiment.data, "train", self.preprocessing, NUM_SAMPLES)
        self.held_out = held_out(self._validation_pixels, experiment.run)
        bottleneck = self.model.bottleneck
        discrete = isinstance(bottleneck, DiscreteBottleneck)
        self.usage = CodeUsage(bottleneck.codebook_size, bottleneck.num_codebooks) if discrete else None
        self.alarm: str | None = None
        self.phases = tuple(sorted({0.0, photo.perceptual_start or 0.0, photo.adversarial_start or 0.0}))
        self.restarted = torch.zeros(())

    def _validation_pixels(self, count: int) -> Tensor:
        """Images of the validation split, as bytes: after binarisation, so that they are always the same."""
        source = open_data(self.experiment.data, "validation")
        self.data |= {"validation": {"num_images": len(source), "fingerprint": source.fingerprint}}
        return to_uint8(some_images(self.experiment.data, "validation", self.preprocessing, count))

    def batches(self, start: int) -> Iterator[Tensor]:
        """Batches of uint8 images."""
        experiment, run = self.experiment, self.experiment.run
        place = {"rank": processes.rank(), "world": processes.world()}
        own = processes.part_of(run.batch_size)
        batches = Batches(self.pixels, own, seed=run.seed, augment=experiment.augment, **place)
        return batches.iterate(start * experiment.optimizer.accumulate)

    def compile(self) -> None:
        """The encoder and the decoder.

        With an adversary the encoder only: the weight of its term is by gradients in the decoder's last layer, and a
        compiled decoder has no way back but the whole.
        """
        compile_networks([self.model.encoder] if self.adversary else [self.model.encoder, self.model.decoder])

    def before_step(self, step: int) -> dict[str, float]:
        """Beta, and the annealing of the bottleneck."""
        return {"beta": self._beta(step), **self.model.bottleneck.anneal(step, self.experiment.run.steps)}

    def _beta(self, step: int) -> float:
        return self.experiment.loss.beta(step, self.experiment.run.steps)

    def loss(self, batch: Tensor, step: int) -> Loss:
        """The loss of all autoencoders, and the perceptual and adversarial terms."""
        images = model_images(batch.to(self.device, non_blocking=True), self.preprocessing)
        seen = corrupt(images, self.experiment.model.corruption)
        loss = autoencoder_loss(self.model, images, self.experiment.loss, self._beta(step), seen)
        if self.usage is not None and loss.codes is not None:
            counts = self.model.codes_bottleneck.histogram(loss.codes)
            self.alarm = self.usage.observe(counts, loss.codes.numel()) or self.alarm
        if self.perceptual is None and self.adversary is None:
            return loss
        assert loss.parameters is not None
        made = self.model.likelihood.mean(loss.parameters, clamp=False)
        progress = step / self.experiment.run.steps
        loss = self._with_perceptual(loss, made, images, progress)
        return self._with_adversary(loss, made, images, progress)

    def _with_perceptual(self, loss: Loss, made: Tensor, images: Tensor, progress: float) -> Loss:
        """Add the perceptual term, of windows of evenly spread reconstructions and their images."""
        photo = self.experiment.photo
        if self.perceptual is None:
            return loss
        assert photo.perceptual_weight is not None and photo.perceptual_window and photo.perceptual_share
        assert photo.perceptual_start is not None
        if progress < photo.perceptual_start:
            return loss._replace(terms=loss.terms | {"perceptual": loss.total.new_zeros(())})
        whole, first = randomness.whole(len(images)), randomness.first_row(len(images))
        count, term = max(1, round(photo.perceptual_share * whole)), loss.total.new_zeros(())
        places = [(2 * index + 1) * whole // (2 * count) - first for index in range(count)]
        chosen = [place for place in places if 0 <= place < len(images)]
        seen, others = random_windows(photo.perceptual_window, made, images, chosen=chosen)
        if chosen:
            mean = self.perceptual(seen, others).sum() / count * (whole / len(images))  # as the mean of all processes
            term = passed_once(mean, made)
        total = loss.total + photo.perceptual_weight * term
        return loss._replace(total=total, terms=loss.terms | {"perceptual": term.detach()})

    def _with_adversary(self, loss: Loss, made: Tensor, images: Tensor, progress: float) -> Loss:
        """Add the adversarial term."""
        if self.adversary is None:
            return loss
        last = [weight for weight in self.model.decoder.parameters() if weight.ndim > 1][-1]
        terms = self.adversary.loss(images, made, loss.total, last, progress)
        detached = {name: term.detach() for name, term in terms.items()}
        return loss._replace(total=loss.total + terms["adversarial"], terms=loss.terms | detached)

    def validate(self, model: Autoencoder) -> dict[str, float]:
        """The loss that is trained, with beta at its end and without an adversary; PSNR; usage and perplexity.

        Means over images; usage and perplexity of all their codes. A penalty that is no mean over images, such as an
        entropy over a batch, is over batches of the training's size.
        """
        if self.held_out is None:
            return {}
        means, counts, experiment = Means(), None, self.experiment
        size = experiment.run.batch_size
        for first in range(0, len(self.held_out), size):
            batch = self.held_out[first : first + size]
            images = to_float(batch.to(self.device, non_blocking=True))
            seen = torch.stack(corrupt_each(images, experiment.model.corruption, first=first))
            loss = autoencoder_loss(model, images, experiment.loss, experiment.loss.beta.end, seen)
            assert loss.parameters is not None
            made = model.likelihood.mean(loss.parameters, clamp=False)
            loss = self._with_perceptual(loss, made, images, progress=1.0)
            psnr = psnr_db(mse(images, made.clamp(0, 1)).clamp(min=1e-10)).mean()
            means.add({**loss.terms, "loss": loss.total, "psnr_db": psnr}, len(batch))
            if loss.codes is not None:
                own = model.codes_bottleneck.histogram(loss.codes)
                counts = own if counts is None else counts + own
        return means.result() | ({} if counts is None else {"usage": usage(counts), "perplexity": perplexity(counts)})

    def after_step(self) -> str | None:
        """Update the codebook and the discriminator."""
        if self.adversary is not None:
            self.adversary.step()
        restarted = self.model.bottleneck.update().get("restarted")
        if restarted is not None:
            self.restarted = self.restarted.to(restarted.device) + restarted
        alarm, self.alarm = self.alarm, None
        return alarm

    def report(self) -> dict[str, float]:
        """Usage, perplexity, and the number of dead codes restarted since the last report."""
        if self.usage is None:
            return {}
        restarted, self.restarted = self.restarted.item(), torch.zeros(())
        return {**self.usage.report(), "restarted_codes": restarted}

    def picture(self, model: Autoencoder) -> Image.Image:
        """Originals above reconstructions; of a model that restores, noisy images above the restored and the clean."""
        corruption = self.experiment.model.corruption
        seen = torch.stack(corrupt_each(self.shown, corruption))
        clean = [] if corruption.noise == "none" else [self.shown]
        return before_after(seen, model.reconstruct(seen).cpu(), *clean)

    def state(self) -> dict[str, Tensor]:
        """The usage window and the discriminator."""
        window = prefixed("usage", self.usage.state()) if self.usage else {}
        adversary = prefixed("adversary", self.adversary.state()) if self.adversary else {}
        return {"restarted": self.restarted.cpu(), **window, **adversary}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""
        self.restarted = state["restarted"]
        if self.usage:
            self.usage.load(under(state, "usage"))
        if self.adversary:
            self.adversary.load(under(state, "adversary"))
