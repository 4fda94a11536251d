"""Good pictures in files that are damaged where it does not matter: what is left out is no part of the picture."""

import hashlib
import io
import struct
import zlib

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
PICTURE = {b"tRNS", b"iCCP", b"eXIf", b"acTL"}  # chunks that say how the picture looks, or that there are more
NEEDED = {b"IHDR", b"PLTE", b"IDAT"}
SMALLEST_PROFILE, LARGEST_PROFILE = 128, 1 << 20  # bytes of ICC profiles: their header; what Pillow inflates
JPEG, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FILLERS = (b"\x55" * 64, b"\xc3\x1e" * 32)


def mended(data: bytes) -> bytes | None:
    """The file without its damage, where that touches no pixel; None where nothing can be done.

    A PNG loses texts and other chunks that are no part of the picture, and what has a wrong checksum among the rest
    that is not needed. A JPEG that lacks its last two bytes, the mark of its end, gets them.
    """
    if data.startswith(PNG):
        return _mended_png(data)
    return _mended_jpeg(data) if data.startswith(JPEG) else None


def _mended_png(data: bytes) -> bytes | None:
    kept, place = [PNG], len(PNG)
    while place + 8 <= len(data):
        (length,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        end = place + 12 + length
        if kind == b"IEND" or (end > len(data) and kind != b"IDAT"):
            break
        check = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4)
        whole = data[end - 4 : end] == check and (kind != b"iCCP" or _is_profile(data[place + 8 : end - 4]))
        if kind in NEEDED or (kind in PICTURE and whole):
            kept.append(data[place:end])
        place = end
    kept.append(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))
    whole = b"".join(kept)
    return whole if whole != data else None


def _is_profile(body: bytes) -> bool:
    """Whether the body of a chunk iCCP, name, NUL, method and deflated profile, holds one that can be inflated."""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(body.partition(b"\0")[2][1:], LARGEST_PROFILE)
    except zlib.error:
        return False
    return unpacker.eof and len(profile) >= SMALLEST_PROFILE


def _mended_jpeg(data: bytes) -> bytes | None:
    """With its end, unless a part of the picture is missing too: then what stands in its place changes the pixels."""
    data = data.removesuffix(b"\xff")
    if JPEG_END in data[-2:]:
        return None
    seen = {_pixels(data + filler + JPEG_END) for filler in (b"", *FILLERS)}
    return data + JPEG_END if len(seen) == 1 else None


def _pixels(data: bytes) -> bytes:
    """A hash of the picture."""
    with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
        return hashlib.sha256(image.tobytes()).digest()
