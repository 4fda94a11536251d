"""Good .smalti files of all kinds, and what can be done to them: numbers of the header, bytes, checksums that fit."""

import io
import struct
import warnings
import zlib
from unittest import mock

import numpy as np

from smalti.codec import Codec, DamagedFile
from smalti.codec.container import CRC, HASH_BYTES, MAGIC, Header
from smalti.codec.varints import Reader, inflate, sized, varint

from ..codec.conftest import K, kinds_of_images, save_model, save_prior
from ..conftest import draw_image

NUMBERS = [0, 1, 2, 3, 127, 128, 4095, 4096, 4097, *(1 << bits for bits in (14, 20, 24, 31, 32, 34, 63))]
NUMBERS += [(1 << 22) + 1, (1 << 32) - 1, (1 << 35) - 1, (1 << 64) + 1]


def images_of(codec, data):
    return [np.asarray(image).tobytes() for image in codec.decompress(data)]


def good_files(folder, **options):
    """(codec, file) of every coder, of one codebook and two and a very large one, with and without `--lossless`."""
    model = save_model(folder / "model")
    prior = save_prior(folder / "prior", model, folder / "model")
    residual = {"kind": "residual_quantizer", "num_codebooks": 3, "codebook_size": K, "code_dim": 4}
    several = save_model(folder / "several", residual)
    large = save_model(folder / "large", {"kind": "binary_quantizer", "bits": 21})
    images = [draw_image(0, (13, 9)), draw_image(1, (8, 8)), kinds_of_images()[2].resize((9, 9))]
    files = []
    for lossless in (False, True):
        more = {"lossless": lossless, **options}
        codecs = [Codec(model, prior, coder=coder, **more) for coder in ("fixed", "histogram", "adaptive", "prior")]
        codecs += [Codec(several, coder="adaptive", depth=2, **more), Codec(large, images_per_chunk=1, **more)]
        files += [(codec, codec.compress(images, ["a", "b", "c"])) for codec in codecs]
        codec = Codec(model, prior, images_per_chunk=1, **more)
        files.append((codec, _of_two_coders(codec, images)))
    files.append((codecs[2], codecs[2].compress([images[1]] * 20)))  # alike
    return files


def _of_two_coders(codec, images):
    """A file whose middle chunk the prior did not code."""
    real, count = codec._chunks.coder.encode, iter(range(9))

    def encode(grids, *, verify):
        with mock.patch("smalti.codec.prior_coder.MOST_NOISE", -1 if next(count) == 1 else 1):
            return real(grids, verify=verify)

    with mock.patch.object(codec._chunks.coder, "encode", encode), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = codec.compress(images)
    assert data[4] == 2
    return data


def taken_apart(data):
    """(version, flags and coder and hashes, numbers of the header, the table, the chunks); None, if that cannot be."""
    try:
        reader = Reader(io.BytesIO(data))
        version = reader.take(len(MAGIC) + 1)[-1]
        body = reader.sized(1 << 26)
        chunks = reader.rest()[CRC.size :]
        place = 2 + HASH_BYTES * (2 if body[1] == 3 else 1)
        reader = Reader(io.BytesIO(body[place:]))
        numbers = [reader.number(1 << 64) for _ in range(5)]
        packed = body[0] & Header.DEFLATED
        table = inflate(reader.rest(), length) if packed and (length := reader.number(1 << 26)) else reader.rest()
    except (DamagedFile, IndexError):
        return None
    return version, body[:place], numbers, table, chunks


def put_together(version, start, numbers, table, chunks, *, deflate):
    """A file of these parts, its header's checksum made to fit."""
    flags = start[0] & ~Header.DEFLATED | Header.DEFLATED * deflate
    packed = varint(len(table)) + zlib.compress(table) if deflate else table
    header = MAGIC + bytes([version]) + sized(bytes([flags]) + start[1:] + varint(*numbers) + packed)
    return header + CRC.pack(zlib.crc32(header)) + chunks


def changed_numbers(data, rng):
    """A file with one to three changes of the numbers of its header, its flags, its table or its chunks."""
    parts = taken_apart(data)
    if parts is None:
        return data
    version, start, numbers, table, chunks = parts
    start, table, chunks = bytearray(start), bytearray(table), bytearray(chunks)
    for _ in range(int(rng.integers(1, 4))):
        number = NUMBERS[rng.integers(len(NUMBERS))] if rng.random() < 0.8 else int(rng.integers(0, 1 << 20))
        place = int(rng.integers(0, len(table) or 1))
        match int(rng.integers(0, 8)):
            case 0 | 1:
                numbers[rng.integers(5)] = number
            case 2 | 3:
                table[place : place + 1] = varint(number)
            case 4:
                start[rng.integers(2)] ^= 1 << int(rng.integers(0, 6))
                version = int(rng.integers(1, 4))
            case 5:
                table += varint(number) * int(rng.integers(1, 9))
            case 6:
                table[place : place + int(rng.integers(1, 4))] = b""
            case _:
                place = int(rng.integers(0, len(chunks) or 1))
                chunks[place : place + int(rng.integers(0, 9))] = rng.bytes(int(rng.integers(0, 9)))
    if rng.random() < 0.5:  # chunk lengths that fit what is there are left alone by most changes
        chunks = chunks[: max(0, len(chunks) - int(rng.integers(0, 3)))]
    return put_together(version, bytes(start), numbers, bytes(table), bytes(chunks), deflate=rng.random() < 0.3)


def changed_contents(data, rng):
    """A file whose header is as it was, but for the sizes of images, and whose chunks are as long as they were."""
    version, start, numbers, table, chunks = taken_apart(data)
    table, chunks = bytearray(table), bytearray(chunks)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(0, len(chunks)))
        if rng.random() < 0.3:
            table[rng.integers(min(9, len(table)))] = int(rng.integers(1, 128))
        elif rng.random() < 0.5:
            chunks[place] ^= 1 << int(rng.integers(0, 8))
        else:
            part = min(len(chunks) - place, int(rng.integers(1, 40)))
            chunks[place : place + part] = [b"\0" * part, b"\xff" * part, rng.bytes(part)][rng.integers(3)]
    return put_together(version, start, numbers, bytes(table), bytes(chunks), deflate=False)


def fix_checksum(data: bytes) -> bytes:
    """A header that was changed, with a checksum that fits."""
    try:
        length, place, shift = 0, len(MAGIC) + 1, 0
        while True:
            byte = data[place]
            length |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                break
        end = place + length
        return data[:end] + struct.pack("<I", zlib.crc32(data[:end])) + data[end + 4 :]
    except IndexError:
        return data
