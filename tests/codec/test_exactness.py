"""What --lossless promises: every value of the file comes back, or one line says which would not; profiles are kept."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.codec import Archive, Codec, DamagedFile
from smalti.codec.container import Header
from smalti.codec.tables import ImageEntry, ImageTable, pack_profiles
from smalti.errors import SmaltiError

from ..conftest import draw_image
from ..images.test_values import npy, png, tiff
from .conftest import save_model

COLOUR = Image.fromarray(draw_image(0, (12, 17)))
WIDE = np.add.outer(np.arange(12), np.arange(17)) * 2000
RGB_PROFILE = b"\0\0\x02\x0c" + bytes(12) + b"RGB XYZ " + bytes(range(200))
GREY_PROFILE = RGB_PROFILE.replace(b"RGB ", b"GRAY")


def file(image, kind="PNG", **options):
    image.save(data := io.BytesIO(), kind, **options)
    return data.getvalue()


def wide(kind):
    return Image.fromarray(WIDE.astype(kind))


PAGES = {"save_all": True, "append_images": [COLOUR.rotate(180)]}
LOST = {
    "16-bit grey PNG": file(wide(np.uint16)),
    "16-bit grey TIFF": file(wide(np.uint16), "TIFF"),
    "16-bit colour PNG": png(np.dstack([WIDE] * 3)),
    "16-bit transparent PNG": png(np.dstack([WIDE] * 2)),
    "16-bit colour TIFF": tiff(np.dstack([WIDE] * 3).astype(np.uint16)),
    "16-bit PGM": file(wide(np.uint16), "PPM"),
    "16-bit PPM": b"P6 2 1 1000\n" + bytes(12),
    "16-bit JPEG 2000": file(wide(np.uint16), "JPEG2000"),
    "float TIFF": file(wide(np.float32), "TIFF"),
    "float in [0, 1]": file(Image.fromarray((WIDE / 65535).astype(np.float32)), "TIFF"),
    "int32 TIFF": file(wide(np.int32), "TIFF"),
    "int16 TIFF": file(wide(np.int16), "TIFF"),
    "int8 TIFF": tiff((WIDE / 1000).astype(np.int8)),
    "five bands": tiff(np.dstack([WIDE] * 5).astype(np.uint8)),
    "CMYK TIFF": file(COLOUR.convert("CMYK"), "TIFF"),
    "CMYK JPEG": file(COLOUR.convert("CMYK"), "JPEG"),
    "LAB TIFF": file(COLOUR.convert("LAB"), "TIFF"),
    "frames of a GIF": file(COLOUR.quantize(8), "GIF", save_all=True, append_images=[COLOUR.quantize(7)]),
    "frames of a PNG": file(COLOUR, **PAGES),
    "frames of a WebP": file(COLOUR, "WEBP", lossless=True, **PAGES),
    "pages of a TIFF": file(COLOUR, "TIFF", **PAGES),
    "a pair of JPEGs": file(COLOUR, "MPO", **PAGES),
    "palette": file(COLOUR.quantize(8)),
    "one bit": file(COLOUR.convert("1")),
    "a transparent colour": file(COLOUR, transparency=(0, 0, 0)),
    "array of floats": npy(np.random.default_rng(0).random((5, 6))),
    "array of 16 bits": npy(WIDE.astype(np.uint16)),
}


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return Codec(save_model(tmp_path_factory.mktemp("exact") / "model"), lossless=True)


@pytest.mark.parametrize("kind", LOST)
def test_what_cannot_be_restored_is_refused_in_one_line(kind, exact):
    with pytest.raises(SmaltiError, match="lossless|grey and colour") as error:
        exact.compress(LOST[kind], ["a picture"])
    assert "\n" not in str(error.value) and "a picture" in str(error.value)
    if kind not in {"five bands", "int32 TIFF", "int16 TIFF", "int8 TIFF", "float TIFF"}:  # those need a value range
        assert len(Codec(exact.model).decompress(Codec(exact.model).compress(LOST[kind]))) == 1


WAYS = [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True, "exact": True})]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize(("kind", "options"), [*WAYS, ("BMP", {}), ("PPM", {}), ("JPEG", {}), ("JPEG2000", {})])
def test_what_can_be_restored_is_restored_bit_for_bit(mode, kind, options, exact):
    image = COLOUR.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray((WIDE // 250).astype(np.uint8)))
    try:
        data = file(image, kind, **options)
    except OSError:
        pytest.skip("no such files")
    before = Image.open(io.BytesIO(data))
    (after,) = exact.decompress(exact.compress(data))
    assert before.mode == after.mode and np.array_equal(np.asarray(before), np.asarray(after))


def test_a_turned_photograph_is_restored_upright(exact):
    exif = Image.Exif()
    exif[0x112] = 6
    (after,) = exact.decompress(exact.compress(file(COLOUR, exif=exif)))
    assert np.array_equal(np.asarray(after), np.asarray(COLOUR.transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize("lossless", [True, False])
def test_profiles_are_kept(lossless, exact):
    codec = exact if lossless else Codec(exact.model)
    grey = COLOUR.convert("L")
    pictures = [file(COLOUR, icc_profile=RGB_PROFILE), file(COLOUR), file(grey, icc_profile=GREY_PROFILE)]
    data = codec.compress([*pictures, pictures[0]])
    assert len(data) < len(codec.compress([file(COLOUR)] * 2 + [file(grey), file(COLOUR)])) + 700
    for image, profile in zip(codec.decompress(data), [RGB_PROFILE, None, GREY_PROFILE, RGB_PROFILE], strict=True):
        assert image.info.get("icc_profile") == profile
        assert Image.open(io.BytesIO(file(image))).info.get("icc_profile") == profile  # in the PNG of decompress, too


def test_a_profile_of_other_colours_than_the_pictures_is_not_kept(exact):
    inks = file(COLOUR.convert("CMYK"), "JPEG", icc_profile=RGB_PROFILE.replace(b"RGB ", b"CMYK"))
    (image,) = Codec(exact.model).decompress(Codec(exact.model).compress(inks))
    assert image.mode == "RGB" and "icc_profile" not in image.info


def test_any_profile_of_a_file_is_kept_where_all_is(exact):
    grey = file(COLOUR.convert("L"), icc_profile=RGB_PROFILE)
    (image,) = exact.decompress(exact.compress(grey))
    assert image.mode == "L" and image.info["icc_profile"] == RGB_PROFILE


def test_lists_and_batches_are_flattened_as_encode_does(exact):
    codec, grey = Codec(exact.model), COLOUR.convert("L")
    found = codec.decompress(codec.compress([[COLOUR, grey], torch.rand(2, 3, 9, 8)], names=list("abcd")))
    assert [(image.mode, image.size) for image in found] == [
        ("RGB", COLOUR.size), ("L", COLOUR.size), *[("RGB", (8, 9))] * 2
    ]  # fmt: skip


def test_a_file_without_profiles_has_no_place_for_them(exact):
    assert b"".join([pack_profiles([b"", b"x", b"x"])]) == b"\x01\x01x\x00\x01\x01"
    with Archive(io.BytesIO(exact.compress(file(COLOUR)))) as archive:
        header = archive.header
    assert not header.pack()[6] & Header.PROFILED


def test_a_file_of_a_later_kind_says_so():
    body = bytes([64, 0]) + bytes(20)
    with pytest.raises(DamagedFile, match="newer smalti"):
        Header.read(io.BytesIO(Header._framed(2, body)))
    entry = ImageEntry(3, 4, "RGB", "", RGB_PROFILE)
    packed = Header(
        coder="fixed", lossless=False, codebook_size=4, stride=4, depth=1, model_hash="0" * 12, prior_hash="",
        images_per_chunk=4, images=ImageTable.of([entry, entry._replace(profile=b"")]), chunk_bytes=(9,),
    )  # fmt: skip
    assert Header.read(io.BytesIO(packed.pack())) == packed


# ------------------------------------------------------------------ compress and encode take and refuse the same


VALUES = {
    "uint8 array": np.asarray(COLOUR), "grey uint8 array": np.asarray(COLOUR)[:, :, 0],
    "uint16 array": WIDE.astype(np.uint16),
    "float array": np.asarray(COLOUR) / 255, "float32 grey": (np.asarray(COLOUR)[:, :, 0] / 255).astype(np.float32),
    "uint8 tensor": torch.zeros(3, 9, 9, dtype=torch.uint8), "float tensor": torch.rand(3, 9, 9), "bool": WIDE > 9000,
    "half tensor": torch.rand(3, 9, 9).half(), "grey tensor": torch.rand(1, 9, 9),
    "[-1, 1] tensor": torch.rand(3, 9, 9) * 2 - 1, "0 to 255 floats": torch.rand(3, 9, 9) * 255,
    "0 to 255 array": np.full((9, 9, 3), 255.0), "NaN": np.full((9, 9, 3), np.nan), "integers": np.ones((9, 9, 3), int),
    "int64 tensor": torch.ones(3, 9, 9, dtype=torch.int64), "objects": np.zeros((9, 9, 3), object),
    "complex": np.zeros((9, 9, 3), complex), "nothing": np.zeros((0, 0, 3), np.uint8), "a row": np.zeros(9, np.uint8),
    "four bands": np.zeros((9, 9, 4), np.uint8), "two bands": torch.rand(2, 9, 9), "a number": 3.0, "None": None,
    "no file": "none.png", "bytes": b"none", "mode P": COLOUR.quantize(8), "mode F": Image.fromarray(WIDE / 65535.0),
    "mode I": wide(np.int32), "16-bit file": LOST["16-bit grey PNG"], "float file": LOST["float TIFF"],
    "empty list": [], "nested lists": [[COLOUR, COLOUR], [], [COLOUR]],
    "batches": [torch.rand(2, 3, 9, 9), torch.rand(3, 9, 9)],
    "sparse": torch.rand(3, 9, 9).to_sparse(), "a list in a list of nothing": [[]],
}  # fmt: skip


@pytest.mark.parametrize("what", VALUES)
def test_compress_takes_and_refuses_what_encode_does(what, exact):
    codec, said = Codec(exact.model), []
    for verb in (codec.model.encode, codec.compress):
        try:
            verb(VALUES[what])
            said.append("")
        except SmaltiError as error:
            assert "\n" not in str(error)
            said.append(str(error))
    assert bool(said[0]) == bool(said[1]), said


def test_values_between_levels_are_not_lossless(exact):
    for value in (torch.rand(3, 9, 9), np.random.default_rng(0).random((9, 9)), WIDE.astype(np.uint16)):
        with pytest.raises(SmaltiError, match="--lossless"):
            exact.compress(value)
    (after,) = exact.decompress(exact.compress(np.asarray(COLOUR) / np.float32(255)))
    assert np.array_equal(np.asarray(after), np.asarray(COLOUR))


def test_a_model_with_a_range_or_with_bands_says_what_it_cannot_do(tmp_path):
    with pytest.raises(SmaltiError, match="lossless cannot undo"):
        Codec(save_model(tmp_path / "range", value_range="0:4095"), lossless=True)
    with pytest.raises(SmaltiError, match="4 channels"):
        Codec(save_model(tmp_path / "bands", channels=4))
    codec = Codec(save_model(tmp_path / "again", value_range="0:60000"))
    assert codec.picture(LOST["16-bit grey PNG"]).pixels.max() == round(WIDE.max() / 60000 * 255)
