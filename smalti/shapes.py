"""The letter legend for shapes, and the one check that public entry points make.

B images            C channels          H W image height and width, pixels
h w code grid       D code dim          K codebook size
T tokens            N = B*h*w vectors
"""

from typing import Protocol

from smalti.errors import SmaltiError


class HasShape(Protocol):
    """Anything with a shape: a tensor or an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102


def check_shape(value: HasShape, axes: str, name: str, **sizes: int) -> None:
    """Raise unless `value` has the axes that `axes` spells.

    Args:
        value: the tensor or array to look at.
        axes: letters of the legend separated by spaces, for example "B C H W".
        name: what the user calls the value.
        **sizes: the size that an axis must have, for example C=3.

    Raises:
        SmaltiError: another number of axes, or an axis of another size; the message states both shapes.

    Example:
        >>> check_shape(np.zeros((2, 8, 8)), "B h w", "codes", h=8)
        >>> check_shape(np.zeros((2, 8)), "B h w", "codes")
        Traceback (most recent call last):
        smalti.errors.SmaltiError: codes must be (B, h, w), not (2, 8)
    """
    letters = axes.split()
    shape = tuple(value.shape)
    wanted = [sizes.get(letter) for letter in letters]
    if len(shape) != len(letters) or any(want not in (None, size) for want, size in zip(wanted, shape, strict=True)):
        spelled = ", ".join(f"{letter}={sizes[letter]}" if letter in sizes else letter for letter in letters)
        raise SmaltiError(f"{name} must be ({spelled}), not {shape}")
