"""What the loop trains when it trains a prior: codes in, bits per code out."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from smalti.data.batches import Epochs
from smalti.generator import Generator
from smalti.models.autoencoder import Autoencoder
from smalti.pictures import grid
from smalti.pretrained import Pretrained
from smalti.priors.code_model import CodeModel
from smalti.train.codes import load_codes
from smalti.train.experiment import PriorExperiment
from smalti.train.losses import Loss
from smalti.train.tasks import NUM_SAMPLES, Task


class PriorTask(Task):
    """Train a prior on the codes of a tokenizer, which stays as it is.

    Args:
        experiment: the recipe's result.
        device: where the model goes.
        run: the run's folder, for the cache of codes.
        progress: show a bar while reading images.
    """

    def __init__(self, experiment: PriorExperiment, device: str, run: Path, progress: bool):
        self.experiment, self.device = experiment, device
        with torch.random.fork_rng():  # the prior's first weights are the same whether its codes were cached or not
            self.codes, self.classes = load_codes(experiment.model, experiment.data, "train", run, progress)
            self.tokenizer = Autoencoder.from_pretrained(experiment.model.tokenizer, device=device)
        self.code_model = CodeModel(experiment.model).to(device).train()

    @property
    def model(self) -> CodeModel:
        """The prior, on its device."""
        return self.code_model

    def batches(self, start: int) -> Iterator[Tensor]:
        """The numbers of the images of each batch."""
        experiment = self.experiment
        order = Epochs(len(self.codes), seed=experiment.seed)
        step = start * experiment.optimizer.accumulate
        while True:
            yield torch.from_numpy(order(step * experiment.batch_size, experiment.batch_size))
            step += 1

    def before_step(self, step: int) -> dict[str, float]:
        """Nothing follows a schedule."""
        return {}

    def loss(self, batch: Tensor, step: int) -> Loss:
        """Nats per code; also as bits per code."""
        classes = None if self.classes is None else self.classes[batch].to(self.device)
        nats = self.code_model.prior.nll(self.codes[batch].to(self.device), classes).mean()
        per_code = nats / self.codes[0].numel()
        terms = {"bits_per_code": per_code.detach() / math.log(2), "loss": per_code.detach()}
        return Loss(total=per_code, terms=terms, codes=None)

    def after_step(self) -> str | None:
        """Nothing to update."""
        return None

    def report(self) -> dict[str, float]:
        """Nothing beside the terms."""
        return {}

    def picture(self, model: Pretrained) -> Image.Image:
        """A few draws."""
        assert isinstance(model, CodeModel)
        labels = model.config.labels
        names = [labels[place * len(labels) // NUM_SAMPLES] for place in range(NUM_SAMPLES)] if labels else None
        generator = Generator(model, self.tokenizer)
        codes = generator.draw(names, 1 if names else NUM_SAMPLES)
        return grid(self.tokenizer.decode(codes).cpu(), columns=8, zoom=2)

    def state(self) -> dict[str, Tensor]:
        """Nothing: batches are a function of the step."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Nothing to load."""
