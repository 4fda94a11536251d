"""Sheets of walks through the latents: from image to image, and along each dimension."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.evaluation.latents import ACTIVE
from smalti.images.contact_sheets import labelled, whole_zoom
from smalti.models.autoencoder import Autoencoder

CELL_PX = 64  # a picture is enlarged to about this
REACH = 3.0  # standard deviations of p(z), to either side


def interpolation_sheet(model: Autoencoder, images: Tensor, names: Sequence[str], steps: int = 8) -> Image.Image:
    """A row for each two images in sequence: the originals outside, their interpolation between them.

    Args:
        model: of any kind.
        images: (B, C, H, W), two or more.
        names: of the images.
        steps: pictures of the interpolation, with its ends.
    """
    rows = []
    for index in range(len(images) - 1):
        start, end = images[index : index + 2].split(1)
        between = model.interpolate(start, end, steps).cpu()
        rows.append((f"{names[index]}\nto {names[index + 1]}", torch.cat([start, between, end])))
    header = ["image", *(f"{100 * step / (steps - 1):.0f}%" for step in range(steps)), "image"]
    return labelled(header, rows, whole_zoom(images, CELL_PX))


def traversal_sheet(
    model: Autoencoder, image: Tensor, activity: Tensor, steps: int = 7, most_rows: int = 32
) -> tuple[Image.Image, int]:
    """A row for each active channel of the latents, the most active first: the image as that channel moves.

    A channel is moved at all positions together, by up to 3 standard deviations of p(z) to either side of the image's
    posterior mean. It is active when the mean activity of its units is above the threshold of active units.

    Args:
        model: with a Gaussian posterior.
        image: (1, C, H, W).
        activity: (D,) of the channels, see `LatentStatistics`.
        steps: pictures in a row.
        most_rows: channels that are shown at most.

    Returns:
        The sheet, and how many channels are active.

    Raises:
        SmaltiError: fewer than two steps or one row, or no active channel.
    """
    if steps < 2 or most_rows < 1:
        raise SmaltiError(f"a traversal has at least 2 steps and 1 row, not {steps} and {most_rows}")
    active = [channel for channel in activity.argsort(descending=True).tolist() if activity[channel] > ACTIVE]
    if not active:
        raise SmaltiError(
            "no channel of the latents is active (posterior collapse): train longer, or with a lower beta"
        )
    shifts, rows = torch.linspace(-REACH, REACH, steps), []
    mean, size = model.encode_latents(image), (image.shape[2], image.shape[3])
    for channel in active[:most_rows]:
        moved = mean.repeat(steps, 1, 1, 1)
        moved[:, channel] += shifts.to(moved).view(-1, 1, 1)
        pictures = model.decode_latents(moved, size).cpu()
        rows.append((f"channel {channel}\nvariance {activity[channel]:.2f}", pictures))
    header = [f"{shift:+.3g}" if shift else "0" for shift in shifts.tolist()]
    left_out = f"{len(activity) - len(active)} of {len(activity)} channels are not active"
    cut = f"; the {most_rows} most active of {len(active)} are shown" if len(active) > most_rows else ""
    return labelled(header, rows, whole_zoom(image, CELL_PX), f"{left_out}{cut}"), len(active)
