"""Images as small files that decode anywhere: a model's codes, entropy-coded, in a documented container."""

from smalti.codec.archive import Archive
from smalti.codec.codec import Codec
from smalti.codec.errors import CannotDecode, DamagedFile

__all__ = ["Archive", "CannotDecode", "Codec", "DamagedFile"]
