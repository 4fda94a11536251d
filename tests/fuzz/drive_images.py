"""Mutated image files of all formats: each is read, or refused as a bad image."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from smalti.images.errors import BadImage
from smalti.images.preprocessing import Reading
from smalti.images.reading import read_image, read_pixels

from .harness import Fault, changed_bytes

SHORT = 250
LARGE = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
RANGES = (None, (0, 4095), (-1000, 1000), (0, 1))


def prepare(folder):
    """(format, bytes) of a small file of every kind."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)).resize((31, 23))
    grey, wide = colour.convert("L"), np.add.outer(np.arange(23), np.arange(31)) * 1200
    modes = {
        "RGB": colour, "L": grey, "RGBA": colour.convert("RGBA"), "LA": grey.convert("LA"), "P": colour.quantize(16),
        "1": grey.convert("1"), "I;16": Image.fromarray(wide.astype(np.uint16)), "CMYK": colour.convert("CMYK"),
        "I": Image.fromarray(wide.astype(np.int32)), "F": Image.fromarray((wide / 65535).astype(np.float32)),
        "YCbCr": colour.convert("YCbCr"), "LAB": colour.convert("LAB"),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x112], exif[0x11A], exif[0x10F] = 6, 72.0, "maker"
    profile = b"\0\0\x02\x0c" + bytes(12) + b"RGB XYZ " + bytes(500)
    more = {"save_all": True, "append_images": [modes["P"].rotate(180)]}
    made = [("npy", array_file(wide)), ("npy", array_file(rng.random((9, 8, 5)).astype(np.float32)))]
    for kind, names, ways in [
        ("PNG", "RGB L RGBA LA P 1 I;16 I", [{}, {"exif": exif, "icc_profile": profile}, more]),
        ("JPEG", "RGB L CMYK YCbCr", [{"exif": exif}, {"progressive": True, "icc_profile": profile}]),
        ("GIF", "P L 1 RGB", [{}, more]),
        ("WEBP", "RGB RGBA", [{"exif": exif}, {"lossless": True}, {"save_all": True, "append_images": [colour]}]),
        ("BMP", "RGB L P 1 RGBA", [{}]),
        ("TIFF", "RGB L RGBA LA P 1 I;16 I F CMYK YCbCr LAB", [{"compression": None}, {"exif": exif}, {**more}]),
        ("TIFF", "RGB L I;16 F 1", [{"compression": name} for name in ("tiff_lzw", "tiff_deflate", "packbits")]),
        ("TIFF", "RGB L", [{"compression": "jpeg"}]),
        ("TIFF", "1", [{"compression": name} for name in ("group3", "group4", "tiff_ccitt")]),
        ("AVIF", "RGB RGBA", [{"exif": exif}]),
        ("JPEG2000", "RGB L RGBA I;16", [{}]),
        ("PPM", "RGB L 1 I;16", [{}]),
        ("TGA", "RGB L P", [{}, {"compression": "tga_rle"}]),
        ("MPO", "RGB", [{"save_all": True, "append_images": [colour]}]),
        ("ICO", "RGBA", [{}]), ("PCX", "RGB L P", [{}]), ("SGI", "RGB L", [{}]), ("DDS", "RGB RGBA", [{}]),
    ]:  # fmt: skip
        for name in names.split():
            made += [(kind, encoded(modes[name], kind, way)) for way in ways]
    return [(kind, data) for kind, data in made if data]


def array_file(values):
    """The bytes of an array's file."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def encoded(image, kind, options):
    """The bytes of a picture's file; nothing where Pillow does not write it so."""
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (OSError, ValueError, KeyError, TypeError):
        return b""
    return file.getvalue()


def attempt(files, rng):
    """A mutant of one of them, half of the time with other sizes, counts, offsets and tags in its headers."""
    kind, data = files[rng.integers(len(files))]
    changed = STRUCTURES.get(kind, other_numbers) if rng.random() < 0.5 else changed_bytes
    data = changed(data, rng)
    if rng.random() < 0.1:
        data = data[: rng.integers(0, len(data) + 1)]
    channels, at_least = int(rng.choice([1, 3, 3, 3, 4, 2, 5])), [None, 8, (5, 40)][rng.integers(3)]
    try:
        read_image(data, channels)
        pixels = read_pixels(data, Reading(channels, at_least, RANGES[rng.integers(len(RANGES))]))
    except BadImage:
        return f"{kind}: refused"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels or not pixels.size:
        raise Fault(f"{kind}: {pixels.dtype} {pixels.shape} for {channels} channels")
    return f"{kind}: read"


def evil_number(rng, most):
    """A number of at most so many, near a power of two."""
    number = int(rng.choice(LARGE)) + int(rng.integers(-1, 2)) if rng.random() < 0.5 else int(2 ** rng.uniform(0, 32))
    return max(0, min(number, most))


def other_numbers(data, rng):
    """One to three fields of 2 or 4 bytes of the header, of either order, with other numbers."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.choice([2, 4]))
        place = int(rng.integers(0, max(1, min(len(data), 96) - width)))
        order = "little" if rng.random() < 0.5 else "big"
        changed[place : place + width] = evil_number(rng, 256**width - 1).to_bytes(width, order)
    return bytes(changed)


def other_png(data, rng):
    """Chunks changed, doubled, left out or moved, with checksums that fit; sizes, bits and kinds in the header."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append([data[place + 4 : place + 8], bytearray(data[place + 8 : place + 8 + length])])
        place += 12 + length
    for _ in range(int(rng.integers(1, 3))):
        number = int(rng.integers(0, len(chunks)))
        kind, body = chunks[number]
        match int(rng.integers(0, 6)):
            case 0:
                chunks[0][1][:4] = struct.pack(">I", evil_number(rng, 1 << 31))
            case 1:
                chunks[0][1][4:8] = struct.pack(">I", evil_number(rng, 1 << 31))
            case 2:
                chunks[0][1][8:10] = bytes([rng.choice([1, 2, 4, 8, 16, 3]), rng.choice([0, 2, 3, 4, 6, 1])])
            case 3:
                chunks.insert(int(rng.integers(0, len(chunks) + 1)), [kind, body[: rng.integers(0, len(body) + 1)]])
            case 4:
                text = zlib.compress(bytes(int(rng.choice([10, 1 << 16, 3 << 20]))))
                chunks.insert(1, [rng.choice([b"zTXt", b"iCCP", b"tEXt"]).tobytes(), bytearray(b"key\0\0" + text)])
            case _:
                chunks.pop(number)
                chunks = chunks or [[kind, body]]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return data[:8] + b"".join(parts)


def other_tiff(data, rng):
    """Entries of the first directory with other tags, types, counts and values."""
    order = "little" if data[:2] == b"II" else "big"
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        entry = start + 2 + 12 * int(rng.integers(0, max(1, count)))
        field, width = [(0, 2), (2, 2), (4, 4), (8, 4), (8, 4), (8, 2)][rng.integers(6)]
        number = evil_number(rng, 256**width - 1) if field else int(rng.choice([256, 257, 258, 259, 262, 273, 277, 278,
            279, 284, 317, 322, 323, 324, 325, 338, 339, 320, 347, 274, 34665]))  # fmt: skip
        changed[entry + field : entry + field + width] = number.to_bytes(width, order)
    return bytes(changed)


def other_npy(data, rng):
    """Another shape, order or type in the header of an array."""
    shape = (23, 31) if rng.random() < 0.3 else tuple(evil_number(rng, 1 << 40) for _ in range(rng.integers(0, 5)))
    kind = rng.choice(["<f4", "<f8", ">u2", "|u1", "|b1", "<i8", "|O", "<c16", "<M8[s]", "<U7", "|V9", "<f2", "<u4"])
    text = f"{{'descr': '{kind}', 'fortran_order': {rng.random() < 0.5}, 'shape': {shape}, }}".encode()
    length = evil_number(rng, 65535) if rng.random() < 0.2 else len(text)
    return data[:8] + struct.pack("<H", length) + text + data[128:]


STRUCTURES = {"PNG": other_png, "TIFF": other_tiff, "npy": other_npy}
