"""What a recipe returns: a frozen description of one training. Without torch, so that `--help` is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from smalti.configs import FREE, effective, nearest
from smalti.data.config import Augment, DataConfig
from smalti.errors import SmaltiError
from smalti.files import relative_place
from smalti.models.config import AutoencoderConfig
from smalti.priors.config import PriorConfig
from smalti.schedules import Schedule, constant, cosine
from smalti.training.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss, see `smalti.training.losses`."""

    beta: Schedule = Schedule(end=1.0)  # of the KL; 6.6 is DALL-E's as printed
    commitment_weight: float = 0.25  # of the term whose gradient reaches the encoder
    codebook_weight: float = 1.0  # of the term whose gradient reaches the codebook; there is none with moving averages
    entropy_weight: float = 0.1  # of the entropies of LFQ and BSQ
    penalty_weights: Mapping[str, float] = field(default_factory=dict)  # of other penalties, by the bottleneck's names


@dataclass(frozen=True, kw_only=True)
class PhotoConfig:
    """Perceptual and adversarial terms for photographs (VQGAN); what a term that is not there would need is None.

    Attributes:
        perceptual: a feature network whose distance is added to the loss; for photographs.
        perceptual_weight: of that distance, in the loss per dimension; 0.1 by default.
        perceptual_window: side in pixels of the part of an image that it looks at, four times enlarged, another one at
            random at every step; 64 by default.
        perceptual_share: the part of a batch's images that it looks at, one at least; 1/16 by default.
        perceptual_start: the part of the run before it begins; 0.5 by default.
        adversarial_weight: of a patch discriminator: the length of its gradient in the decoder's last layer, in lengths
            of the rest's; 0 is none, 0.1 a good start.
        adversarial_start: the part of the run before the discriminator begins (an untrained decoder cannot learn from
            it); 0.5 by default.
        discriminator_width: channels of its first layer; 32 by default.
        discriminator_window: side in pixels of the part of an image that it judges, another one at random at every
            step; 48 by default.
        discriminator_learning_rate: of its Adam; 2e-4 by default.
        lecam_weight: of the penalty that keeps its judgements near the usual ones (LeCAM), for few images; 0 by
            default.
    """

    perceptual: Literal["none", "effnet"] = "none"
    perceptual_weight: float | None = None
    perceptual_window: int | None = None
    perceptual_share: float | None = None
    perceptual_start: float | None = None
    adversarial_weight: float = 0.0
    adversarial_start: float | None = None
    discriminator_width: int | None = None
    discriminator_window: int | None = None
    discriminator_learning_rate: float | None = None
    lecam_weight: float | None = None

    def __post_init__(self) -> None:
        options = effective(
            self.perceptual != "none",
            "without perceptual",
            perceptual_weight=(self.perceptual_weight, 0.1),
            perceptual_window=(self.perceptual_window, 64),
            perceptual_share=(self.perceptual_share, 1 / 16),
            perceptual_start=(self.perceptual_start, 0.5),
        )
        options |= effective(
            self.adversarial_weight != 0,
            "without adversarial_weight",
            adversarial_start=(self.adversarial_start, 0.5),
            discriminator_width=(self.discriminator_width, 32),
            discriminator_window=(self.discriminator_window, 48),
            discriminator_learning_rate=(self.discriminator_learning_rate, 2e-4),
            lecam_weight=(self.lecam_weight, 0.0),
        )
        for name, value in options.items():
            object.__setattr__(self, name, value)
        for name in ("perceptual_weight", "adversarial_weight", "lecam_weight"):
            if (getattr(self, name) or 0) < 0:
                raise SmaltiError(f"{name} must not be negative: {getattr(self, name)}")
        for name in ("perceptual_start", "adversarial_start"):
            if not 0 <= (start := getattr(self, name) or 0) < 1:
                raise SmaltiError(f"{name} is a part of the run, in [0, 1), not {start}")
        if self.perceptual_share is not None and not 0 < self.perceptual_share <= 1:
            raise SmaltiError(f"perceptual_share is a part of a batch, in (0, 1], not {self.perceptual_share}")
        for name, least in (("perceptual_window", 8), ("discriminator_window", 8), ("discriminator_width", 1)):
            if (given := getattr(self, name)) is not None and given < least:
                raise SmaltiError(f"{name} must be at least {least}, not {given}")


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Further codes of an image for a prior to learn from: those of other views of it.

    Attributes:
        views: whose codes a prior learns too: none; flip, of the mirror image; or crop, of windows of random place,
            size and form, flipped half of the time.
        num_views: of crop, how many of each image; 8 by default. The codes of all are made before the training.
        view_area: of crop, area of the smallest window, as a share of the largest's; 0.5 by default.
    """

    views: Literal["none", "flip", "crop"] = "none"
    num_views: int | None = None
    view_area: float | None = None

    def __post_init__(self) -> None:
        options = {"num_views": (self.num_views, 8), "view_area": (self.view_area, 0.5)}
        chosen = effective(self.views == "crop", "without views crop", **options)
        for name in options:
            object.__setattr__(self, name, chosen.get(name))
        if self.num_views is not None and self.num_views < 1:
            raise SmaltiError(f"num_views must be at least 1, not {self.num_views}")
        if self.view_area is not None and not 0 < self.view_area <= 1:
            raise SmaltiError(f"view_area is a share, above 0 and at most 1, not {self.view_area}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, optionally with Muon; clipping, accumulation and weight averaging.

    Attributes:
        learning_rate: the highest.
        decay_learning_rate: by half a cosine to 0 at the end of the run; otherwise it is constant.
        warmup: steps to reach the highest learning rate.
        betas: of AdamW.
        weight_decay: of AdamW, for tensors of two or more axes only.
        muon_rate: kernels of hidden layers are optimised by Muon, at the learning rate times this; 0 is AdamW for all.
        clip_norm: the gradient's norm is clipped to this; 0 is never.
        accumulate: batches per optimiser step.
        ema_decay: of the moving average of the weights, which is saved and evaluated; 0 is none. Warmed up as
            min(ema_decay, (1 + step) / (10 + step)).
    """

    learning_rate: float = 1e-3
    decay_learning_rate: bool = True
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    muon_rate: float = 0.0
    clip_norm: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.999

    @property
    def schedule(self) -> Schedule:
        """Of the learning rate."""
        decayed = cosine(self.learning_rate, 0.0, warmup=self.warmup)
        return decayed if self.decay_learning_rate else replace(constant(self.learning_rate), warmup=self.warmup)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The model whose weights a training begins with.

    Attributes:
        model: its folder, or owner/name on the hub; in experiment.json as `smalti.files.relative_place` says it.
        hash: SHA-256 of its weights.
    """

    model: str = field(metadata=FREE)
    hash: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of every training; deterministic on the same machine."""

    what: ClassVar[str]  # is trained, as of `Pretrained`
    recipe: str = ""  # the name of what made it
    data: DataConfig  # a name alone will do, as for `open_data`
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunSettings = RunSettings()
    start: Start | None = None  # by default random weights
    history: tuple[Mapping[str, int], ...] = field(default=(), metadata=FREE)  # {"done": D, "steps": S}: at D no more S

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", DataConfig.of(self.data))

    def with_settings(self, **settings: Any) -> Self:
        """The same experiment with other settings of the run, see `RunSettings`; None leaves one as it is.

        Raises:
            SmaltiError: an unknown setting, or a value that makes no sense.
        """
        known = [field.name for field in fields(RunSettings)]
        if unknown := [name for name in settings if name not in known]:
            raise SmaltiError(f"a run has no setting {unknown[0]!r}; {nearest(unknown[0], known)}")
        given = {name: value for name, value in settings.items() if value is not None}
        run = replace(self.run, **given)
        steps = None if run.steps == self.run.steps else run.steps
        effective(run.minutes is None, f"with minutes {run.minutes}, which decide it", steps=(steps, None))
        return replace(self, run=run)

    def lasting(self, steps: int) -> Self:
        """The experiment whose minutes are so many steps; the warm-up takes at most a tenth of them."""
        warmup = min(self.optimizer.warmup, steps // 10)
        return replace(self, run=replace(self.run, steps=steps), optimizer=replace(self.optimizer, warmup=warmup))

    def placed(self, folder: Path) -> Self:
        """The experiment as a file in `folder` says it: other folders are named from there."""
        if self.start is None:
            return self
        return replace(self, start=replace(self.start, model=relative_place(self.start.model, folder)))


Frozen = Literal["none", "codebook", "encoder"]


@dataclass(frozen=True, kw_only=True)
class Experiment(Training):
    """The training of an autoencoder, complete."""

    what: ClassVar[str] = "autoencoder"
    model: AutoencoderConfig
    loss: LossConfig = LossConfig()
    photo: PhotoConfig = PhotoConfig()
    freeze: Frozen = "none"  # what stands still: with the encoder also the codebook, so that all codes stay
    augment: Augment = "none"
    crop_area: float | None = None  # of augment crop: area of the smallest window, of the largest's; 0.5 by default

    def __post_init__(self) -> None:
        super().__post_init__()
        effective(False, "on an autoencoder, which each process has as a whole", shard=(self.run.shard or None, False))
        chosen = effective(self.augment == "crop", "without augment crop", crop_area=(self.crop_area, 0.5))
        object.__setattr__(self, "crop_area", chosen.get("crop_area"))
        if self.crop_area is not None and not 0 < self.crop_area <= 1:
            raise SmaltiError(f"crop_area is a share, above 0 and at most 1, not {self.crop_area}")


@dataclass(frozen=True, kw_only=True)
class PriorExperiment(Training):
    """The training of a prior on the codes of a trained tokenizer, complete."""

    what: ClassVar[str] = "prior"
    model: PriorConfig  # with its tokenizer
    views: ViewsConfig = ViewsConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        effective(False, "on a prior, whose networks are not compiled", compile=(self.run.compile or None, False))

    def placed(self, folder: Path) -> Self:
        """The tokenizer's place too."""
        return replace(super().placed(folder), model=self.model.placed(folder))
