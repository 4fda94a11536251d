"""What a file of `smalti encode` holds: codes or latents, original sizes, and whose they are; checked when it is read.

A file may be anybody's. What it says of itself is checked when it is opened, against its headers; the values of an
image are read when they are used, and are then as large as the headers said.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from smalti.configs import fit
from smalti.errors import SmaltiError, one_line, shown
from smalti.images.opening import LARGEST_PX
from smalti.ranges import CodebookSize, Range

if TYPE_CHECKING:
    from torch import Tensor

    from smalti.models.autoencoder import Autoencoder

Kind = Literal["codes", "latents"]
Pool = Literal["none", "mean"]
VERSION = 1
SHOWN = 12  # images whose shapes a description names
Side = Annotated[int, Range(1, LARGEST_PX)]


@dataclass(frozen=True, kw_only=True)
class EncodedFile:
    """What a file holds, one entry an image in each list.

    Attributes:
        kind: of the values.
        names: of the images.
        values: codes (*grid) int64, latents (D, h, w) float32, or pooled latents (D,); on the CPU.
        sizes: (H, W) to crop the decoded images to.
        model_hash: of the model that made them.
        codebook_size: K; 0 of latents.
        pool: how latents became one vector an image.
        labels: label kind to texts; none of image files.
    """

    kind: Kind
    names: Sequence[str]
    values: "Sequence[Tensor]"
    sizes: Sequence[tuple[int, int]]
    model_hash: str
    codebook_size: int = 0
    pool: Pool = "none"
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Of the values."""
        return self.values.shapes if isinstance(self.values, Stored) else [tuple(own.shape) for own in self.values]

    @property
    def dtype(self) -> type[np.generic]:
        """Of the values as they are stored."""
        return np.float32 if self.kind == "latents" else np.uint16 if self.codebook_size <= 1 << 16 else np.uint32

    def describe(self) -> dict[str, Any]:
        """Its kind, counts, and the shapes of its first images, as JSON can hold them."""
        first = zip(self.names[:SHOWN], self.shapes, strict=False)
        own = {"codebook_size": self.codebook_size} if self.kind == "codes" else {"pool": self.pool}
        result = {
            "num_images": len(self.names),
            f"num_{'codes' if self.kind == 'codes' else 'values'}": sum(map(prod, self.shapes)),
            "kind": self.kind,
            **own,
            "grids": {name: list(shape) for name, shape in first},
        }
        return result | (
            {"labels": {kind: len(set(texts)) for kind, texts in self.labels.items()}} if self.labels else {}
        )


class Stored(Sequence["Tensor"]):
    """Values in a file, read and checked when they are asked for.

    Args:
        shapes: of each.
        read: gives the values of one, as they are stored.
        codebook_size: K of codes; 0 of latents.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], read: Callable[[int], np.ndarray], codebook_size: int):
        self.shapes, self._read, self._codebook_size = shapes, read, codebook_size

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        """The values of one image, or of several.

        Raises:
            SmaltiError: codes outside of [0, K), latents that are not finite, or a damaged file.
        """
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        values = self._read(range(len(self))[index])
        if self._codebook_size and values.size and int(values.max()) >= self._codebook_size:
            raise SmaltiError(f"codes must lie in [0, {self._codebook_size}); one is {int(values.max())}")
        if not self._codebook_size and not np.isfinite(values).all():
            raise SmaltiError("the file holds latents that are not finite; encode the images again")
        from torch import from_numpy

        return from_numpy(values.astype(np.int64 if self._codebook_size else np.float32))


def check_fits(file: EncodedFile, model: "Autoencoder", most_pixels: int | None = None) -> None:
    """Raise unless a model can decode what a file holds; by what the file says of itself, before memory is taken.

    Raises:
        SmaltiError: pooled latents, values of other shapes than the model gives to images of these sizes, another
            codebook, or an image of more than `most_pixels`.
    """
    if file.pool != "none":
        raise SmaltiError("the file holds pooled latents, which cannot be decoded; encode again without --pool")
    most = LARGEST_PX if most_pixels is None else most_pixels
    codes = model.codes_bottleneck if file.kind == "codes" else None
    if codes is not None and file.codebook_size != codes.codebook_size:
        raise SmaltiError(f"the file's codes are of {file.codebook_size}, the model's of {codes.codebook_size}")
    for name, shape, (height, width) in zip(file.names, file.shapes, file.sizes, strict=True):
        if height * width > most:
            raise SmaltiError(f"{shown(name)} has {width}x{height} pixels; at most {most:,} are decoded")
        grid = model.networks.grid_of(height, width)
        wanted = codes.grid_shape(*grid) if codes is not None else (model.bottleneck.out_channels, *grid)
        if shape != wanted:
            sizes = f"{shown(shape)} where {width}x{height} pixels have {wanted}"
            raise SmaltiError(f"{shown(name)} has {file.kind} of the shape {sizes}; the file is damaged")


def checked(
    path: Path,
    about: Mapping[str, Any],
    names: Sequence[str],
    sizes: Sequence[Any],
    shapes: Sequence[tuple[int, ...]],
    read: Callable[[int], np.ndarray],
    labels: Mapping[str, Sequence[str]],
) -> EncodedFile:
    """The file, if what it says of itself makes sense."""
    with one_line(path, f"{path} is not a file of `smalti encode`"):
        version = fit(int, about.get("version"), "version")
        if version > VERSION:
            raise SmaltiError(f"version {version} of its format, this smalti reads {VERSION}; update smalti")
        if foreign := about.keys() - {"kind", "version", "model_hash", "codebook_size", "pool"}:
            raise SmaltiError(f"unknown key {shown(sorted(foreign)[0])}")
        kind = fit(Kind, about.get("kind"), "kind")
        codebook_size = fit(CodebookSize, about.get("codebook_size"), "codebook_size") if kind == "codes" else 0
        model_hash = fit(str, about.get("model_hash"), "model_hash")
        if len(model_hash) != 64 or not set(model_hash) <= set("0123456789abcdef"):
            raise SmaltiError(f"model_hash: expected 64 hexadecimal digits, got {shown(model_hash)}")
        pool: Pool = fit(Pool, about.get("pool", "none"), "pool")
        names = fit(list[str], names, "names")
        if len(set(names)) < len(names) or any("\0" in name for name in names):
            raise SmaltiError("two images have one name, or one has a NUL")
        fitted: list[tuple[int, int]] = []
        for name, size, shape in zip(names, sizes, shapes, strict=True):
            height, width = fit(tuple[Side, Side], size, f"size/{shown(name)}")
            fitted.append((height, width))
            fit(tuple[Side, ...], shape, f"shape of {shown(name)}")
            axes = {"codes": (1, 2, 3, 4), "latents": (1,) if pool == "mean" else (3,)}[kind]
            most = height * width * (1 << 10 if kind == "codes" else 1 << 20)
            if height * width > LARGEST_PX or len(shape) not in axes or prod(shape) > most:
                raise SmaltiError(f"{shown(name)}: {kind} of the shape {shown(shape)} of {width}x{height} pixels")
        for key, texts in labels.items():
            if len(fit(list[str], texts, f"labels/{shown(key)}")) != len(names):
                raise SmaltiError(f"{len(texts)} labels {shown(key)} of {len(names)} images")
    values = Stored(shapes, read, codebook_size)
    options = {"codebook_size": codebook_size, "pool": pool, "labels": labels}
    return EncodedFile(kind=kind, names=names, values=values, sizes=fitted, model_hash=model_hash, **options)
