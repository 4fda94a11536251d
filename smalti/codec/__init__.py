"""Images as small files that decode anywhere: a model's codes, entropy-coded, in a documented container.

What a file says of itself is read without torch; `Codec` is loaded on first use.
"""

from typing import TYPE_CHECKING, Any

from smalti.codec.archive import Archive
from smalti.codec.errors import CannotDecode, DamagedFile

if TYPE_CHECKING:
    from smalti.codec.codec import Codec

__all__ = ["Archive", "CannotDecode", "Codec", "DamagedFile"]


def __getattr__(name: str) -> Any:
    if name != "Codec":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smalti.codec.codec import Codec

    return Codec
