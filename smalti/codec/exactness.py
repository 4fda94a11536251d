"""What of an image file a .smalti file keeps: 8 bits a value, grey or colour, opacity, one picture, the profile."""

from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile

from smalti.images.layers import deep_colour

KEPT_MODES = ("RGB", "L", "RGBA", "LA")
LOST_MODES = {
    "1": "has one bit a pixel", "P": "has a palette", "PA": "has a palette", "CMYK": "has the inks of CMYK",
    "F": "has values of floating point", "I": "has values of 32 bits",
}  # fmt: skip
SPACES = {b"RGB ": 3, b"GRAY": 1}  # colour spaces of profiles, and how many channels their images have


def what_is_lost(image: Image.Image) -> str:
    """What a file has that would not be restored, in words; empty where all is. The image's pixels are not yet read."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        return f"has {frames} frames or pages"
    if image.mode.startswith("I;") or deep_colour(image) or _precision(image) > 8:
        return "has more than 8 bits a value"
    if image.mode not in KEPT_MODES:
        return LOST_MODES.get(image.mode, f"has the mode {image.mode}")
    if image.mode == "L" and "transparency" in image.info:
        return "has a transparent level of grey"
    if image.mode == "RGB" and "transparency" in image.info:
        return "has a transparent colour"
    return _lost_of_tiff(image) if image.format == "TIFF" else ""


def _lost_of_tiff(image: Image.Image) -> str:
    """What Pillow leaves out of a TIFF: bands, or the sign of values."""
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(277, 1) != len(image.getbands()):
        return f"has {tags.get(277)} bands"
    return "has signed values" if tags.get(339, (1,))[0] != 1 else ""


def _precision(image: Image.Image) -> int:
    """Bits a value of files that Pillow reads as 8 whatever they have: JPEG 2000, AVIF, and others with a maximum."""
    if not isinstance(image, ImageFile) or image.format not in ("JPEG2000", "AVIF", "PPM") or image.fp is None:
        return 8
    if image.format == "PPM":
        args = image.tile[0].args if image.tile else None
        return 16 if isinstance(args, tuple) and args[1] not in (0, 1, 255) else 8
    place = image.fp.tell()
    image.fp.seek(0)
    head = image.fp.read(1 << 16)
    image.fp.seek(place)
    if image.format == "AVIF":
        config = head.find(b"av1C")  # version, profile and level, then the flags: 0x40 says 10 or 12 bits
        return 10 if 0 <= config < len(head) - 6 and head[config + 6] & 0x40 else 8
    start = head.find(b"\xff\x4f\xff\x51")  # the codestream: after sizes, the bits of each component
    count = int.from_bytes(head[start + 40 : start + 42]) if start >= 0 else 0
    bits = [(head[at] & 0x7F) + 1 for at in range(start + 42, min(start + 42 + 3 * count, len(head)), 3)]
    return max(bits, default=8)


def fitting_profile(profile: bytes, channels: int) -> bytes:
    """The ICC profile, if it is one of so many channels: that of inks does not fit the colours made of them."""
    return profile if SPACES.get(bytes(profile[16:20])) == channels else b""
