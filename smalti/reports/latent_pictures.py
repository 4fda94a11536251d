"""Pictures of a model's codes: code maps, what a code changes, the codebook as tiles."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from smalti.images.contact_sheets import grid
from smalti.images.pixels import as_colour
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck

EDITS, EDITED_AMONG = 7, 64  # codes to substitute, taken from the most frequent 64
ZOOM = 2
TILE_GRID = 3  # a code is shown as the centre of a 3x3 grid of itself
MOST_TILES = 2048
Captioned = tuple[Image.Image, str]


def latent_pictures(model: Autoencoder, images: Tensor) -> Iterator[Captioned]:
    """Pictures of the codes, each with its caption; of continuous latents there are none.

    Args:
        model: of any kind.
        images: (B, C, H, W).
    """
    if isinstance(model.bottleneck, DiscreteBottleneck):
        with torch.no_grad():
            yield from _code_pictures(model, model.bottleneck, images)


def _code_pictures(model: Autoencoder, bottleneck: DiscreteBottleneck, images: Tensor) -> Iterator[Captioned]:
    codes = model.encode(images[:8])
    order = bottleneck.histogram(model.encode(images))[0].argsort(descending=True)
    first = codes if codes.ndim == 3 else codes[:, 0]
    colours = torch.rand(bottleneck.codebook_size, 3, generator=torch.Generator().manual_seed(1))
    maps = F.interpolate(colours[first].permute(0, 3, 1, 2), size=images.shape[-2:], mode="nearest")
    which = "The codes" if codes.ndim == 3 else "The first codebook's codes"
    shown = torch.cat([as_colour(images[:8]), maps])
    yield grid(shown, 8, ZOOM), f"{which} of images, each code in a colour of its own"
    chosen = order[torch.linspace(0, min(len(order), EDITED_AMONG) - 1, EDITS).long().unique()]
    rows = []
    for row in codes[:4]:
        edited = row.repeat(len(chosen) + 1, *[1] * row.ndim)
        place = edited if row.ndim == 2 else edited[:, 0]
        place[1:, place.shape[1] // 2, place.shape[2] // 2] = chosen
        rows.append(model.decode(edited).cpu())
    caption = "The reconstruction, then the same with its central code replaced by frequent ones"
    yield grid(torch.cat(rows), len(chosen) + 1, ZOOM), caption
    if codes.ndim == 3 and bottleneck.codebook_size <= MOST_TILES:
        caption = "The image of each code, surrounded by itself; most frequent first"
        yield codebook_tiles(model, order.tolist(), zoom=4), caption


def codebook_tiles(model: Autoencoder, order: Sequence[int], columns: int = 32, zoom: int = 6) -> Image.Image:
    """Every code as a tile: the central stride x stride pixels of a decoded grid of that code alone.

    Args:
        model: with a codebook.
        order: the codes in the order in which to show them.
        columns: tiles in a row.
        zoom: size of a pixel.
    """
    codes = torch.as_tensor(order).view(-1, 1, 1).expand(-1, TILE_GRID, TILE_GRID)
    images = torch.cat([model.decode(part).cpu() for part in codes.split(256)])
    start, size = (TILE_GRID // 2) * model.stride, model.stride
    return grid(images[:, :, start : start + size, start : start + size], columns, zoom, "#cccccc")
