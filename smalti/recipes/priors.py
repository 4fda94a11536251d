"""Priors over the codes of a trained tokenizer, or over pixels.

smalti train transformer --tokenizer runs/dvae --data emoji --text en --out runs/transformer
smalti evaluate runs/transformer --data emoji
smalti sample runs/transformer --text "red heart" --num 16 --out hearts.png
smalti train pixelsnail --tokenizer pixels --levels 2 --image_size 28 --data DIR --out runs/mnist
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti.configs import Spec, effective
from smalti.data.config import DataConfig
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, file_hash
from smalti.priors.config import PixelLevels, PriorConfig, TextConfig
from smalti.recipes.flat import recipe
from smalti.training.experiment import OptimizerConfig, PriorExperiment

RUN: dict[str, Any] = {"steps": 800}


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
class Codes:
    """What is modelled, and how it is learned.

    Attributes:
        tokenizer: the run of a trained model with a codebook, or "pixels".
        data: what to train on, and to measure with.
        image_size: with the tokenizer "pixels", the size of the images, as 32 or 16x32; 32 by default.
        image_channels: with the tokenizer "pixels", 3 for RGB, 1 for grey or the number of bands; by default as the
            data have them.
        value_range: with the tokenizer "pixels", LOW:HIGH, the values that are black and white, as 0:4095 for 12 bits;
            by default those of a file's type.
        levels: with the tokenizer "pixels", K: 256, the default, is exact, 2 is dynamic binarisation.
        label: the kind of label to condition on (emoji: group or subgroup; folders: class); empty is none.
        condition_dropout: share of the images that are given without their label or text, for guidance; 0.1 by default.
        optimizer: AdamW with warm-up and cosine, averaged weights.
        minutes: how long a new run may take, in place of steps.
    """

    tokenizer: str
    data: DataConfig = DataConfig(data="emoji")
    image_size: int | str | None = None
    image_channels: int | None = None
    value_range: str | None = None
    levels: int | None = None
    label: str = ""
    condition_dropout: float | None = None
    optimizer: OptimizerConfig = OptimizerConfig(warmup=100, weight_decay=0.05, ema_decay=0.998)
    minutes: float | None = None

    def experiment(self, prior: Spec, captions: Captions = Captions()) -> PriorExperiment:
        """The training of a prior of these codes."""
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
        dropout = (self.condition_dropout, 0.1)
        model = PriorConfig(
            prior=prior,
            label_kind=self.label,
            labels=tuple(sorted(set(labels_of(open_data(self.data), self.label)))) if self.label else (),
            text=text,
            **effective(bool(self.label or text), "without label or text", condition_dropout=dropout),
            **codes,
        )
        return PriorExperiment(data=self.data, model=model, optimizer=self.optimizer)


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A transformer.

    Attributes:
        width: of the residual stream.
        layers: blocks.
        heads: attention heads.
        dropout: of the embeddings and of each block's output.
    """

    width: int = 192
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1


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
    return codes.experiment({"kind": "transformer", **vars(network)}, captions)


@recipe(**RUN)
def maskgit(codes: Codes, network: Blocks, captions: Captions, *, order_temperature: float = 4.5) -> PriorExperiment:
    """Bidirectional transformer that samples many codes at a time, in rounds.

    Args:
        order_temperature: of the noise in the choice of the codes that are kept in a round; inf is a random order.
    """
    return codes.experiment({"kind": "maskgit", **vars(network), "order_temperature": order_temperature}, captions)


def _codes_of(tokenizer: str) -> dict[str, Any]:
    """What a prior has to know of a tokenizer and of its codes for the images that it was trained on."""
    from smalti.models.autoencoder import Autoencoder

    folder = Path(tokenizer)
    if not (folder / CONFIG).exists():
        raise SmaltiError(f"{tokenizer}: no trained model in this folder; give the run of a vqvae or a dvae, or pixels")
    model = Autoencoder.outline(folder)
    shape = model.codes_bottleneck.grid_shape(*model.grid)
    if len(shape) != 2:
        raise SmaltiError(
            f"{tokenizer}: priors take one code at a position, not codes of the shape {shape}; give another tokenizer"
        )
    return {
        "codebook_size": model.codes_bottleneck.codebook_size,
        "grid": (shape[0], shape[1]),
        "tokenizer": str(folder.resolve()),
        "tokenizer_hash": file_hash(folder / WEIGHTS),
    }
