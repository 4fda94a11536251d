"""Priors over the codes of a trained tokenizer, or over pixels.

smalti train transformer --tokenizer runs/dvae --data emoji --text en --out runs/transformer
smalti evaluate runs/transformer --data emoji
smalti sample runs/transformer --text "red heart" --num 16 --out hearts.png
smalti train pixelsnail --tokenizer pixels --levels 2 --image_size 28 --data DIR --out runs/mnist
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti.bundled import place_of
from smalti.configs import Spec, effective
from smalti.data.config import DataConfig
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, file_hash
from smalti.priors.config import PixelLevels, PriorConfig, TextConfig
from smalti.recipes.flat import recipe
from smalti.training.experiment import OptimizerConfig, PriorExperiment, ViewsConfig
from smalti.training.settings import RunSettings

RUN: dict[str, Any] = {"steps": 800}
BATCH_CODES = 2048  # of a batch: 32 grids of 8x8
SMALL_GRID = 64  # codes; of larger grids a step costs more than what a wide network gains
LARGE_CODEBOOK = 1024  # codes of more than these are seen too seldom for tables of their own


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Text as a condition.

    Attributes:
        text: languages of the captions to condition on, with commas between ("en" or "en,de,fr"); empty is no text.
        text_vocabulary: size of the byte-level BPE that is trained on the captions, at most; 1024 by default.
        text_length: tokens of a caption at most; 24 by default.
    """

    text: str = ""
    text_vocabulary: int | None = None
    text_length: int | None = None

    def config(self) -> TextConfig | None:
        """How captions become tokens; None where there is no language."""
        languages = tuple(name.strip() for name in self.text.split(",") if name.strip())
        sizes = {"text_vocabulary": (self.text_vocabulary, 1024), "text_length": (self.text_length, 24)}
        chosen = effective(bool(languages), "without text", **sizes)
        if not chosen:
            return None
        return TextConfig(languages=languages, vocabulary=chosen["text_vocabulary"], length=chosen["text_length"])


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A transformer; what is not given follows from the codes.

    Attributes:
        width: of the residual stream; 192 by default, of grids of more than 64 codes 128.
        layers: blocks; 4 by default, of grids of more than 64 codes 3.
        heads: attention heads; 4 by default.
        code_rank: numbers that tell a code from the others, in one table that starts with the tokenizer's code vectors;
            0 is two tables as wide as the network. By default 0 up to K = 1,024, else 64.
        dropout: of the embeddings and of each block's output; 0.1 by default, of grids of more than 64 codes 0.
    """

    width: int | None = None
    layers: int | None = None
    heads: int | None = None
    code_rank: int | None = None
    dropout: float | None = None

    def spec(self, codebook_size: int, grid: tuple[int, int], **options: Any) -> Spec:
        """Of a prior with these blocks and other options."""
        size: dict[str, Any] = {"width": 128, "layers": 3, "heads": 4, "dropout": 0.0}
        if math.prod(grid) <= SMALL_GRID:
            size = {"width": 192, "layers": 4, "heads": 4, "dropout": 0.1}
        size["code_rank"] = 0 if codebook_size <= LARGE_CODEBOOK else 64
        given = {name: value for name, value in vars(self).items() if value is not None}
        return {**options, **size, **given}


@dataclass(frozen=True, kw_only=True)
class Codes:
    """What is modelled, and how it is learned.

    Attributes:
        tokenizer: the run of a trained model with a codebook, a bundled one (emoji), or "pixels".
        data: what to train on, and to measure with.
        image_size: with the tokenizer "pixels", the size of the images, as 32 or 16x32; 32 by default.
        image_channels: with the tokenizer "pixels", 3 for RGB, 1 for grey or the number of bands; by default as the
            data have them.
        value_range: with the tokenizer "pixels", LOW:HIGH, the values that are black and white, as 0:4095 for 12 bits;
            by default those of a file's type.
        levels: with the tokenizer "pixels", K: 256, the default, is exact, 2 is dynamic binarisation.
        label: the kind of label to condition on (emoji: group or subgroup; folders: class); empty is none.
        condition_dropout: share of the images that are given without their label or text, for guidance; 0.1 by default.
        views: of each image whose codes are learned too.
        optimizer: AdamW with warm-up and cosine, averaged weights.
        minutes: how long a new run may take, in place of steps.
        batch_size: images per batch; 32 by default, of transformers as many as have 2,048 codes, but 4 to 32.
    """

    tokenizer: str
    data: DataConfig = DataConfig(data="emoji")
    image_size: int | str | None = None
    image_channels: int | None = None
    value_range: str | None = None
    levels: int | None = None
    label: str = ""
    condition_dropout: float | None = None
    views: ViewsConfig = ViewsConfig()
    optimizer: OptimizerConfig = OptimizerConfig(warmup=100, weight_decay=0.05, ema_decay=0.998)
    minutes: float | None = None
    batch_size: int | None = None

    def experiment(self, prior: Spec | Blocks, captions: Captions = Captions(), **own: Any) -> PriorExperiment:
        """The training of a prior of these codes, by its spec, or of blocks with more options."""
        from smalti.data.conditions import labels_of
        from smalti.data.sources import open_data

        text = captions.config()
        if self.label and text:
            raise SmaltiError("a prior takes --label or --text, not both")
        options = {"image_size": (self.image_size, 32), "levels": (self.levels, 256)}
        options |= {name: (getattr(self, name), None) for name in ("image_channels", "value_range")}
        pixels = effective(self.tokenizer == "pixels", "without tokenizer pixels", **options)
        if pixels:
            channels = pixels.pop("image_channels") or open_data(self.data).channels
            codes = PixelLevels(channels=channels, **pixels).codes
        else:
            codes = _codes_of(self.tokenizer)
        run = RunSettings()
        if isinstance(prior, Blocks):
            run = RunSettings(batch_size=min(32, max(4, BATCH_CODES // math.prod(codes["grid"]))))
            prior = prior.spec(codes["codebook_size"], codes["grid"], **own)
        dropout = (self.condition_dropout, 0.1)
        model = PriorConfig(
            prior=prior,
            label_kind=self.label,
            labels=tuple(sorted(set(labels_of(open_data(self.data), self.label)))) if self.label else (),
            text=text,
            **effective(bool(self.label or text), "without label or text", condition_dropout=dropout),
            **codes,
        )
        return PriorExperiment(data=self.data, model=model, optimizer=self.optimizer, views=self.views, run=run)


@recipe(**RUN)
def pixelcnn(codes: Codes, *, channels: int = 96, layers: int = 8, dropout: float = 0.2) -> PriorExperiment:
    """Gated PixelCNN over the codes of a tokenizer.

    Args:
        channels: of the features.
        layers: gated layers after the first.
        dropout: of whole channels after the gates.
    """
    return codes.experiment({"kind": "pixelcnn", "channels": channels, "layers": layers, "dropout": dropout})


@recipe(**RUN)
def pixelsnail(
    codes: Codes, *, channels: int = 64, blocks: int = 4, residuals: int = 2, heads: int = 4, dropout: float = 0.1
) -> PriorExperiment:
    """PixelSNAIL over the codes of a tokenizer: causal convolutions and attention.

    Args:
        channels: of the residual stream.
        blocks: each is some gated residual layers and one attention.
        residuals: gated residual layers of a block.
        heads: attention heads.
        dropout: inside the gated residual layers.
    """
    prior = {"channels": channels, "blocks": blocks, "residuals": residuals, "heads": heads, "dropout": dropout}
    return codes.experiment({"kind": "pixelsnail", **prior})


@recipe(**RUN)
def transformer(codes: Codes, network: Blocks, captions: Captions) -> PriorExperiment:
    """Decoder-only transformer over the codes of a tokenizer, or over text and codes: the second stage of DALL-E."""
    return codes.experiment(network, captions, kind="transformer")


@recipe(**RUN)
def maskgit(codes: Codes, network: Blocks, captions: Captions, *, order_temperature: float = 4.5) -> PriorExperiment:
    """Bidirectional transformer that samples many codes at a time, in rounds.

    Args:
        order_temperature: of the noise in the choice of the codes that are kept in a round; inf is a random order.
    """
    return codes.experiment(network, captions, kind="maskgit", order_temperature=order_temperature)


def _codes_of(tokenizer: str) -> dict[str, Any]:
    """What a prior has to know of a tokenizer and of its codes for the images that it was trained on."""
    from smalti.models.autoencoder import Autoencoder

    folder = Path(place_of(tokenizer))
    if not (folder / CONFIG).exists():
        raise SmaltiError(f"{tokenizer}: no trained model in this folder; give the run of a vqvae or a dvae, or pixels")
    model = Autoencoder.outline(folder)
    (height, width), bottleneck = model.grid, model.codes_bottleneck
    return {
        "codebook_size": bottleneck.codebook_size,
        "grid": (height, width * bottleneck.num_codebooks),  # several codes at a position stand side by side
        "tokenizer": str(folder.resolve()),
        "tokenizer_hash": file_hash(folder / WEIGHTS),
    }
