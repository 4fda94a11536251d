"""Numbers for what a mean error does not see: cell borders, pixel checkerboards, frames, blur.

Each is a ratio of two energies, summed over images before it is divided: a pair of tensors (B,), numerator and
denominator. The same ratio of the originals is what a number must be set beside.
"""

import torch
from torch import Tensor

Ratio = tuple[Tensor, Tensor]  # numerator (B,), denominator (B,)


def border_ratio(images: Tensor, stride: int) -> Ratio | None:
    """Squared jumps between neighbours across the borders of grid cells, over those between all neighbours.

    1 where nothing happens at the borders; decoders that draw each cell on its own have 2 and more.

    Args:
        images: (B, C, H, W).
        stride: pixels per grid position, which is the distance of the borders.

    Returns:
        None where there are no borders: cells of one pixel, or a single cell.
    """
    if stride == 1 or stride >= min(images.shape[-2:]):
        return None
    across, all_jumps = [], []
    for axis in (2, 3):
        jumps = images.diff(dim=axis).square()
        borders = torch.arange(stride - 1, jumps.shape[axis], stride, device=images.device)
        across.append(_mean(jumps.index_select(axis, borders)))
        all_jumps.append(_mean(jumps))
    return across[0] + across[1], all_jumps[0] + all_jumps[1]


def period2_energy(images: Tensor) -> Ratio:
    """Energy of second differences x[i] - 2 x[i+1] + x[i+2] over that of first differences x[i] - x[i+1].

    Of images (B, C, H, W): 0 for a ramp, 2 for independent jumps, 3 for white noise, 4 for a pure pixel checkerboard.
    """
    second = sum(_mean(images.diff(n=2, dim=axis).square()) for axis in (2, 3))
    first = sum(_mean(images.diff(dim=axis).square()) for axis in (2, 3))
    return torch.as_tensor(second), torch.as_tensor(first)


def ring_error(images: Tensor, reconstructions: Tensor) -> Ratio:
    """Mean squared error of the outermost ring of pixels over that of the inside; 1 is an error that is spread evenly.

    Images and reconstructions (B, C, H, W); padding with zeros darkens the ring.
    """
    errors = (images - reconstructions).square()
    inside = errors[..., 1:-1, 1:-1]
    ring = errors.flatten(1).sum(1) - inside.flatten(1).sum(1)
    return ring / (errors[0].numel() - inside[0].numel()), _mean(inside)


def sharpness(images: Tensor, reconstructions: Tensor) -> Ratio:
    """Energy of central differences (x[i+2] - x[i]) / 2 of reconstructions (B, C, H, W), over that of their originals.

    Below 1 is blur. A central difference is blind to what alternates from pixel to pixel, so that a checkerboard is no
    sharpness.
    """
    return _gradient_energy(reconstructions), _gradient_energy(images)


def _gradient_energy(images: Tensor) -> Tensor:
    vertical = (images[:, :, 2:] - images[:, :, :-2]).square()
    horizontal = (images[..., 2:] - images[..., :-2]).square()
    return (_mean(vertical) + _mean(horizontal)) / 4


def _mean(values: Tensor) -> Tensor:
    """The mean of each image, (B,)."""
    return values.flatten(1).mean(1)
