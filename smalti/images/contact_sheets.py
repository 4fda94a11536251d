"""Contact sheets: grids of images, with Pillow only."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from smalti.images.reading import to_pil

GAP = 2


def whole_zoom(images: Tensor, about_px: int) -> int:
    """How many screen pixels to a pixel of images (..., H, W), so that they are about so wide; at least 1."""
    return max(1, about_px // images.shape[-1])


def grid(images: Tensor, columns: int, zoom: int = 1, background: str = "white") -> Image.Image:
    """Lay images (B, C, H, W) in [0, 1] out in rows of `columns`, each pixel `zoom` wide."""
    tiles = to_pil(images)
    width, height = tiles[0].width * zoom, tiles[0].height * zoom
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), background)
    for index, tile in enumerate(tiles):
        place = (index % columns * (width + GAP), index // columns * (height + GAP))
        sheet.paste(tile.convert("RGB").resize((width, height), Image.Resampling.NEAREST), place)
    return sheet


def before_after(*stages: Tensor, columns: int = 16, zoom: int = 2) -> Image.Image:
    """Rows of the same images (B, C, H, W) at each stage, originals above reconstructions; the last are filled up."""
    columns = min(columns, len(stages[0]))
    missing = stages[0].new_ones(-len(stages[0]) % columns, *stages[0].shape[1:])
    rows = [torch.cat([images, missing]).split(columns) for images in stages]
    return grid(torch.cat([row for group in zip(*rows, strict=True) for row in group]), columns, zoom)


def side_by_side(*pictures: Image.Image) -> Image.Image:
    """Pictures in one, from left to right: before | after."""
    width = sum(picture.width + GAP for picture in pictures) - GAP
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture.convert("RGB"), (left, 0))
        left += picture.width + GAP
    return sheet


def captioned(
    groups: Sequence[tuple[str, Sequence[tuple[str, Tensor]]]], columns: int = 3, zoom: int = 2
) -> Image.Image:
    """Groups (title, [(caption, images (B, C, H, W)), ...]), each caption under its row; all of one shape."""
    margin, line = 14, 20
    small, large = ImageFont.load_default(13), ImageFont.load_default(16)
    first = groups[0][1][0][1]
    cell = grid(first, len(first), zoom)
    across, down = cell.width + 2 * margin, cell.height + line + margin
    heights = [2 * line + margin + -(-len(items) // columns) * down for _, items in groups]
    sheet = Image.new("RGB", (columns * across, sum(heights)), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for (title, items), height in zip(groups, heights, strict=True):
        pen.text((margin, top + margin), title, fill="#c2410c", font=large)
        for index, (caption, images) in enumerate(items):
            left, upper = index % columns * across + margin, top + 2 * line + index // columns * down
            sheet.paste(grid(images, len(images), zoom), (left, upper))
            shown = _shortened(caption, cell.width, small)
            pen.text((left, upper + cell.height + 2), shown, fill="#222222", font=small)
        top += height
    return sheet


def labelled(header: Sequence[str], rows: Sequence[tuple[str, Tensor]], zoom: int = 2, note: str = "") -> Image.Image:
    """Rows (label, images (B, C, H, W)) of one shape, the labels at the left, under a header of a word a column.

    A note goes below.
    """
    margin, line, aside = 8, 18, 104
    font = ImageFont.load_default(13)
    strips = [grid(images, len(images), zoom) for _, images in rows]
    width, height = strips[0].width, strips[0].height + GAP
    size = (aside + width + margin, margin + line + len(rows) * height + (line if note else 0) + margin)
    sheet = Image.new("RGB", size, "white")
    pen, cell, top = ImageDraw.Draw(sheet), (width + GAP) / len(header), margin + line
    for column, word in enumerate(header):
        pen.text((aside + (column + 0.5) * cell, margin + line // 2), word, fill="#222222", font=font, anchor="mm")
    for (label, _), strip in zip(rows, strips, strict=True):
        sheet.paste(strip, (aside, top))
        text = "\n".join(_shortened(part, aside - 2 * margin, font) for part in label.split("\n"))
        pen.multiline_text((margin, top + strip.height / 2), text, fill="#222222", font=font, anchor="lm")
        top += height
    pen.text((margin, top + line / 2), note, fill="#222222", font=font, anchor="lm")
    return sheet


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, truncated with an ellipsis to `width` pixels."""
    shown = text
    while text and font.getlength(shown) > width:
        text = text[:-1]
        shown = text.rstrip() + "..."
    return shown
