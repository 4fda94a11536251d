"""Every damage is a clear error, at once, and never a wrong image."""

import io
import struct
import time
import zlib

import numpy as np
import pytest

from smalti.codec import Archive, CannotDecode, Codec, DamagedFile
from smalti.codec.container import MAGIC, Header
from smalti.codec.tables import ImageEntry, ImageTable
from smalti.codec.varints import sized, varint

from ..conftest import draw_image
from .conftest import K, kinds_of_images


@pytest.fixture(scope="module")
def files(model, prior):
    """A codec and a file of every kind."""
    images = [draw_image(0, (13, 9)), draw_image(1, (8, 8)), kinds_of_images()[2].resize((9, 9))]
    codecs = [
        Codec(model, prior, coder=coder, lossless=lossless)
        for coder in ("fixed", "histogram", "adaptive", "prior")
        for lossless in (False, True)
    ]
    return [(codec, codec.compress(images, ["a", "b", "c"]), codec.compress(images)) for codec in codecs]


def test_a_file_cut_off_anywhere_is_refused(files):
    for codec, named, _ in files:
        for length in range(len(named)):
            with pytest.raises(DamagedFile):
                codec.decompress(named[:length])


def test_a_flipped_bit_anywhere_is_found(files):
    for codec, _, data in files:
        rng = np.random.default_rng(0)
        for place in rng.choice(8 * len(data), min(40, 8 * len(data)), replace=False):
            changed = bytearray(data)
            changed[place // 8] ^= 1 << place % 8
            with pytest.raises((DamagedFile, CannotDecode)):
                codec.decompress(bytes(changed))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n", "begins with b'.x89PNG'"),
        (MAGIC, "cut off"),
        (MAGIC + b"\x03", "version 3"),
    ],
)
def test_what_is_no_such_file_is_told_apart(data, message, model):
    with pytest.raises(DamagedFile, match=message):
        Codec(model).decompress(data)


def test_something_behind_the_end_is_refused(files):
    codec, data, _ = files[0]
    with pytest.raises(DamagedFile, match="3 bytes behind the end"):
        codec.decompress(data + b"abc")


def bomb(table, count=1, flags=0, per_chunk=1):
    body = bytes([flags, 0]) + b"\0" * 6 + varint(36, 4, 1, per_chunk, count) + table
    start = MAGIC + b"\x01" + varint(len(body)) + body
    return start + struct.pack("<I", zlib.crc32(start))


def millions(count, entry, flags=0):
    """A file that says to have so many images, of so many chunks as its bytes may be."""
    chunks = -(-count // 4096)
    table = (entry if flags & Header.SAME_SIZE else entry * count) + varint(4) * chunks + b"\0" * count * (flags & 1)
    packed = varint(len(table)) + zlib.compress(table, 9)
    return bomb(packed, count, flags | Header.DEFLATED, 4096) + bytes(4 * chunks)


@pytest.mark.parametrize("flags", [0, 1, Header.SAME_SIZE, Header.SAME_SIZE | 1])
def test_many_images_of_a_few_kilobytes_are_opened_at_once(flags):
    """Nothing is wrong with them: one chunk of white pictures is as short. But nobody waits for them."""
    data = millions(1 << 18, varint(8, 8, 0), flags)
    started = time.process_time()
    with Archive(io.BytesIO(data)) as archive:
        assert len(archive) == 1 << 18 and len(archive.chunks) == 64
        assert archive.kinds() == {ImageEntry(8, 8, "RGB"): 1 << 18} and archive.parts()["codes"] == 0
        assert archive.header.images[-1] == ImageEntry(8, 8, "RGB")
    assert len(data) < 10_000 and time.process_time() - started < 0.5


def test_more_images_than_the_bytes_can_hold_are_refused_before_they_are_made():
    data = bomb(varint(1, 1, 0, 4), count=1 << 22, flags=Header.SAME_SIZE, per_chunk=4096)
    started = time.process_time()
    with pytest.raises(DamagedFile, match="4194304 images take more than .* chunks of 4096"):
        Archive(io.BytesIO(data))
    with pytest.raises(DamagedFile, match="images take more than"):  # each is a chunk of its own
        Archive(io.BytesIO(millions(1 << 18, varint(5000, 5000, 0))))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("name", [b"\xff", b"a\0b", b"\xed\xb3\xa9"])
def test_names_that_are_none_are_damage(name):
    with pytest.raises(DamagedFile, match="a name is"):
        Archive(io.BytesIO(bomb(varint(8, 8, 0, 4) + sized(name), flags=Header.NAMED) + bytes(4)))


def test_flags_of_a_later_version_are_refused():
    with pytest.raises(DamagedFile, match="version 1 has no flags 16"):
        Archive(io.BytesIO(bomb(varint(8, 8, 0, 4), flags=16) + bytes(4)))


@pytest.mark.parametrize(
    "data",
    [
        bomb(varint(1 << 19, 1 << 19, 0)),  # an image of 274 gigapixels
        bomb(varint(8, 8, 0, 1), count=1 << 22, flags=Header.SAME_SIZE),
        bomb(varint(8, 8, 0, 1), count=1 << 24, flags=Header.SAME_SIZE),
        bomb(varint(8, 8, 0, 1), count=1 << 22, flags=Header.SAME_SIZE, per_chunk=4096),
        bomb(varint(1 << 26) + zlib.compress(b"\0" * (1 << 26)), count=1 << 23, flags=Header.DEFLATED),
        bomb(varint(1 << 60)),
        bomb(b"\xff" * 40),
    ],
)
def test_sizes_that_claim_gigabytes_are_refused(data, model):
    with pytest.raises(DamagedFile):
        Codec(model).decompress(data)


def test_a_large_image_that_the_bytes_cannot_hold_is_refused(model, prior):
    for coder in ("fixed", "prior"):
        header = Header(
            coder=coder, lossless=False, codebook_size=K, stride=4, depth=1, model_hash=model.source_hash[:12],
            prior_hash=prior.source_hash[:12] if coder == "prior" else "", images_per_chunk=1,
            images=ImageTable.of([ImageEntry(10_000, 17_000, "RGB")]), chunk_bytes=(24,),
        )  # fmt: skip
        with pytest.raises(DamagedFile, match="cannot be in 20 bytes"):
            Codec(model, prior, coder=coder).decompress(header.pack() + bytes(24))
