"""What requests and answers hold: images, codes."""

import io
import json
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from smalti.errors import SmaltiError
from smalti.images.opening import bad_images, open_image
from smalti.images.reading import to_images, to_pil
from smalti.models.autoencoder import Autoencoder
from smalti.server.limits import Limits

BYTES_OF_A_CODE = 8  # in JSON, at most; a parser makes much memory of a long text, and nothing else runs meanwhile
IMAGE = {"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}
CODES = {"requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": {
    "codes": {"type": "array", "description": "(h, w) integers, or (q, h, w)"},
    "size": {"type": "array", "items": {"type": "integer"}, "description": "[H, W] to crop the image to"},
}, "required": ["codes"], "example": {"codes": [[3, 1], [4, 1]], "size": [8, 8]}}}}}}  # fmt: skip
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "a picture"}}


def image_of(data: bytes, model: Autoencoder, limits: Limits) -> torch.Tensor:
    """The image (1, C, H, W) of a file, whose header is read first.

    Raises:
        SmaltiError: no image, or too many pixels.
    """
    check_pixels(data, limits.pixels)
    return torch.stack(to_images([data], model.config.preprocessing.reading))


def check_pixels(data: bytes, most: int) -> None:
    """Hold what an image file says of its size against the pixels that are taken.

    Raises:
        SmaltiError: no image, or too many pixels.
    """
    with bad_images("the image"), open_image(data, "the image") as opened:
        height, width = opened.height, opened.width
    if height * width > most:
        raise SmaltiError(f"the image has {width}x{height} pixels; at most {most:,} are taken")


def codes_of(body: bytes, model: Autoencoder, limits: Limits) -> tuple[torch.Tensor, tuple[int, int] | None]:
    """The codes (1, *grid) and the size of the image in a body.

    Raises:
        SmaltiError: no JSON of that form, or codes of more pixels than are decoded. Their range is held by `decode`.
    """
    most = limits.pixels // model.stride**2 * model.codes_bottleneck.num_codebooks
    if len(body) > 1000 + BYTES_OF_A_CODE * most or body.count(b"[") + body.count(b"{") > 1000 + most:
        raise SmaltiError(f"the body is longer than codes of the {limits.pixels:,} pixels that are decoded")
    try:
        value = values_of(body)
        codes = torch.tensor(value["codes"], dtype=torch.int64)[None]
        size = value.get("size")
        wanted = None if size is None else (int(size[0]), int(size[1]))
        if wanted is not None and min(wanted) < 1:
            raise ValueError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, RecursionError, OverflowError):
        form = '{"codes": [[...], ...], "size": [H, W]}'
        raise SmaltiError(f"the body is no JSON of the form {form} with whole numbers of one grid") from None
    if codes.ndim != len(model.codes_bottleneck.code_axes.split()) or not codes.numel():
        raise SmaltiError(
            f"codes must be ({', '.join(model.codes_bottleneck.code_axes.split()[1:])}), none of them empty"
        )
    if codes.shape[-1] * codes.shape[-2] * model.stride**2 > limits.pixels:
        raise SmaltiError(f"these codes are an image of more than the {limits.pixels:,} pixels that are decoded")
    return codes, wanted


def values_of(body: bytes) -> Any:
    """The JSON of a body.

    Raises:
        SmaltiError: there is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise SmaltiError("the body is no JSON") from None


def grid_in(value: list[Any], name: str, shape: Sequence[int]) -> torch.Tensor:
    """Whole numbers, or booleans, of a body as a tensor of that shape.

    Raises:
        SmaltiError: they are something else, or more, or fewer.
    """
    try:
        found = torch.tensor(value)
    except (ValueError, TypeError, RuntimeError, RecursionError, OverflowError):
        raise SmaltiError(f"{name}: expected whole numbers of one grid") from None
    if list(found.shape) != list(shape):
        sizes = [" x ".join(map(str, own)) or "one number" for own in (found.shape, shape)]
        raise SmaltiError(f"{name}: the grid is {sizes[0]}; this prior has {sizes[1]} alone")
    if found.is_floating_point() or found.is_complex():
        raise SmaltiError(f"{name}: expected whole numbers of one grid")
    return found.long()


def json_body(kind: type) -> dict[str, Any]:
    """What OpenAPI says of a body that is made into a dataclass."""
    from pydantic import TypeAdapter

    return {"requestBody": {"content": {"application/json": {"schema": TypeAdapter(kind).json_schema()}}}}


def png_of(images: torch.Tensor) -> bytes:
    """The first of some images (B, C, H, W) as a PNG file."""
    return png_file(to_pil(images)[0])


def png_file(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
