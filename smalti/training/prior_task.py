"""The training task of a prior: codes in, bits per code out."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from smalti import processes
from smalti.data.account import line_of
from smalti.data.batches import Epochs, evenly_spread
from smalti.data.conditions import captions_of
from smalti.data.source import Source
from smalti.data.sources import open_data
from smalti.generate.tokenizer import open_tokenizer
from smalti.images.contact_sheets import grid
from smalti.ops import randomness
from smalti.priors.code_model import CodeModel
from smalti.priors.text import FILE, TextTokenizer
from smalti.training.codes import load_codes
from smalti.training.experiment import PriorExperiment
from smalti.training.held_out import Means, held_out
from smalti.training.losses import Loss
from smalti.training.tasks import NUM_SAMPLES, Task


class PriorTask(Task[CodeModel]):
    """Train a prior on the codes of a frozen tokenizer; they are cached in the run's folder.

    Args:
        experiment: complete.
        device: of the model.
        run: its folder.
        progress: show a bar while images become codes.
        resumes: whether the run has a checkpoint, so that its text tokens belong to the data that it has.
    """

    def __init__(self, experiment: PriorExperiment, device: str, run: Path, progress: bool, resumes: bool = False):
        self.experiment, self.device, config = experiment, device, experiment.model
        source = open_data(experiment.data, "train")
        text = self._text(run, resumes, source)
        with torch.random.fork_rng():  # the same initial weights whether the codes were cached or not
            if progress:
                print(line_of(source), file=sys.stderr)
            with processes.in_turn():  # the others read what the first one has written
                self.codes = load_codes(config, source, run, text, experiment.views, progress)
                self.data = {"train": self.codes.about}
                self.held_out = held_out(lambda n: self._validation_codes(n, run, text, progress), experiment.run)
            self.tokenizer = open_tokenizer(config, device)
        self.model = CodeModel(config, text).to(device).train()
        if self.tokenizer.vectors is not None:
            self.model.prior.begin_with(self.tokenizer.vectors)

    def _validation_codes(
        self, count: int, run: Path, text: TextTokenizer | None, progress: bool
    ) -> tuple[Tensor, Tensor | None]:
        """At most `count` codes of the validation split, evenly spread, and their conditions."""
        source = open_data(self.experiment.data, "validation")
        found = load_codes(self.experiment.model, source, run, text, progress=progress)
        self.data |= {"validation": found.about}
        codes, condition = found.fixed()
        places = evenly_spread(len(codes), count)
        return codes[places], None if condition is None else condition[places]

    def _text(self, run: Path, resumes: bool, source: Source) -> TextTokenizer | None:
        """The text tokenizer: the run's own, that of the model that it starts from, or a new one of the captions."""
        config, start = self.experiment.model.text, self.experiment.start
        if config is None:
            return None
        if resumes and (run / FILE).exists():
            return TextTokenizer.load(run, config.length, config.vocabulary)
        if start and (theirs := CodeModel.from_pretrained(start.model)).config.text == config:
            return theirs.text
        captions = captions_of(source, config.languages)
        return TextTokenizer.train((text for row in captions for text in row), config.vocabulary, config.length)

    def batches(self, start: int) -> Iterator[Tensor]:
        """Indices of each batch's images."""
        run, order = self.experiment.run, Epochs(len(self.codes), seed=self.experiment.run.seed)
        own = processes.part_of(run.batch_size)
        for step in itertools.count(start * self.experiment.optimizer.accumulate):
            yield torch.from_numpy(order(step * run.batch_size + processes.rank() * own, own))

    def loss(self, batch: Tensor, step: int) -> Loss:
        """The prior's loss, with condition dropout for classifier-free guidance."""
        codes, condition = self.codes.sample(batch)
        if condition is not None and self.experiment.model.condition_dropout:
            condition[randomness.uniform(len(condition)) < self.experiment.model.condition_dropout] = -1
        given = None if condition is None else condition.to(self.device)
        total, terms = self.model.prior.loss(codes.to(self.device), given)
        return Loss(total=total, terms={**terms, "loss": total.detach()}, codes=None)

    def validate(self, model: CodeModel) -> dict[str, float]:
        """The loss that is trained, without any dropout, and its terms.

        Means over images. Of text tokens and of codes that are hidden at random, means over batches of the training's
        size.
        """
        if self.held_out is None:
            return {}
        means, size = Means(), self.experiment.run.batch_size
        codes, condition = self.held_out
        for start in range(0, len(codes), size):
            part = slice(start, start + size)
            given = None if condition is None else condition[part].to(self.device)
            total, terms = model.prior.loss(codes[part].to(self.device), given)
            means.add({**terms, "loss": total}, len(codes[part]))
        return means.result()

    def picture(self, model: CodeModel) -> Image.Image:
        """A few samples, of evenly spaced classes or training captions where the prior has them."""
        spaced, condition = torch.arange(NUM_SAMPLES), None
        if model.config.labels:
            condition = (spaced * len(model.config.labels) // NUM_SAMPLES).to(self.device)
        elif self.codes.tokens is not None:
            condition = self.codes.tokens[spaced * len(self.codes) // NUM_SAMPLES, 0].to(self.device)
        generator = torch.Generator(device=self.device).manual_seed(0)
        codes = model.prior.sample(NUM_SAMPLES, condition, generator=generator)
        return grid(self.tokenizer.decode(codes).cpu(), columns=8, zoom=2)
