"""Files: what goes in comes out, for images of every kind; what cannot be is refused in words."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smalti.codec import Archive, CannotDecode, Codec, DamagedFile
from smalti.codec.container import Header, cut
from smalti.codec.errors import NotReadBack
from smalti.codec.images import PictureModel
from smalti.codec.tables import ImageEntry, ImageTable, chunks_of
from smalti.errors import SmaltiError
from smalti.images.reading import BadImage

from ..conftest import draw_image
from .conftest import K, kinds_of_images, save_model, save_prior


def png(image):
    image.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


PNG = png(kinds_of_images()[2])


@pytest.mark.parametrize("coder", ["fixed", "histogram", "adaptive", "prior"])
def test_images_come_back_as_the_model_reconstructs_them(coder, model, prior):
    images = kinds_of_images()
    codec = Codec(model, prior, coder=coder)
    found = codec.decompress(codec.compress(images))
    assert [(image.mode, image.size) for image in found] == [(image.mode, image.size) for image in images]
    expected = model.reconstruct(np.asarray(images[0])).mul(255).round()[0].permute(1, 2, 0)
    assert np.abs(np.asarray(found[0]).astype(int) - expected.numpy()).max() <= 1
    assert np.array_equal(np.asarray(found[2])[:, :, 3], np.asarray(images[2])[:, :, 3])


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_restores_every_pixel(channels, folder, prior):
    codec = Codec(save_model(folder / f"channels{channels}", channels=channels), lossless=True)
    images = kinds_of_images()
    for before, after in zip(images, codec.decompress(codec.compress(images)), strict=True):
        assert before.mode == after.mode and np.array_equal(np.asarray(before), np.asarray(after))


def test_alpha_is_kept_dropped_or_refused(model):
    image = kinds_of_images()[2]
    assert Codec(model).decompress(Codec(model).compress(image))[0].mode == "RGBA"
    dropped = Codec(model, alpha="drop")
    assert dropped.decompress(dropped.compress(image))[0].mode == "RGB"
    with pytest.raises(SmaltiError, match="transparent"):
        Codec(model, alpha="refuse").compress(image)


def test_a_file_is_opened_once(model, tmp_path, monkeypatch):
    opened, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    for index, image in enumerate(kinds_of_images()):
        image.save(tmp_path / f"{index}.png")
        assert Codec(model).picture(tmp_path / f"{index}.png").mode == image.mode
    assert len(opened) == len(kinds_of_images())


@pytest.mark.parametrize("data", [b"", b"no image", PNG[:200]], ids=["empty", "text", "cut"])
def test_what_is_no_image_is_named(data, model, tmp_path):
    (tmp_path / "bad.png").write_bytes(data)
    for name in ("bad.png", "none.png"):
        with pytest.raises(BadImage, match=name):
            Codec(model, lossless=True).picture(tmp_path / name)


@pytest.mark.parametrize("coder", ["adaptive", "prior"])
def test_any_image_of_an_archive_without_the_others(coder, model, prior):
    images = [draw_image(index) for index in range(10)]
    codec = Codec(model, prior, coder=coder, images_per_chunk=3)
    data = codec.compress(images, [f"{index}.png" for index in range(10)])
    whole = codec.decompress(data)

    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size=-1):
            found = super().read(size)
            self.read_bytes += len(found)
            return found

    file = Counting(data)
    with Archive(file) as archive:
        assert len(archive) == 10 and archive.header.images[7].name == "7.png"
        file.read_bytes = 0
        found = dict(codec.images(archive, [7, 4]))
        assert sorted(found) == [4, 7]
        assert file.read_bytes < sum(archive.header.chunk_bytes)  # chunks 1 and 2 of 4
        for index, image in found.items():
            assert np.array_equal(np.asarray(image), np.asarray(whole[index]))


def test_a_tensor_an_array_and_a_batch_are_images_too(model):
    pixels = np.stack([draw_image(0), draw_image(1)])
    codec = Codec(model)
    data = codec.compress(pixels)
    assert codec.compress([pixels[0], pixels[1]]) == data
    assert codec.compress(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255) == data


def test_a_residual_quantizers_depth_is_the_quality(folder):
    residual = {"kind": "residual_quantizer", "num_codebooks": 3, "codebook_size": K, "code_dim": 4}
    model = save_model(folder / "residual", residual)
    image, sizes = draw_image(5, (64, 64)), []
    for depth in (1, 2, 3):
        codec = Codec(model, depth=depth)
        data = codec.compress(image)
        sizes.append(len(data))
        codes = torch.from_numpy(codec.picture_model.encode(image, depth))
        expected = model.decode(codes[None])[0]
        found = np.asarray(codec.decompress(data)[0]) / 255
        assert np.abs(found - expected.permute(1, 2, 0).numpy()).max() < 0.003
    assert sizes == sorted(sizes)
    with pytest.raises(SmaltiError, match="depth must lie in 1 to 3"):
        Codec(model, depth=4)


def test_codes_alone_make_the_file_that_their_image_makes(folder, model):
    residual = {"kind": "residual_quantizer", "num_codebooks": 3, "codebook_size": K, "code_dim": 4}
    for own in (model, save_model(folder / "residual again", residual)):
        codec, image = Codec(own), draw_image(2, (22, 37))
        picture = codec.coded(own.encode(image)[0], (22, 37))
        file = io.BytesIO()
        codec.write(file, [picture])
        assert file.getvalue() == codec.compress(image) and codec.sizes([picture]) == codec.sizes(
            [codec.picture(image)]
        )
        with Archive(file) as archive:
            assert np.array_equal(next(codec.pictures(archive))[1].codes, picture.codes)
        with pytest.raises(SmaltiError, match="an image of 30x22 pixels has codes"):
            codec.coded(own.encode(image)[0], (22, 30))
    with pytest.raises(SmaltiError, match="codes hold no pixels"):
        Codec(model, lossless=True).coded(model.encode(image)[0])


def test_large_images_have_the_codes_of_encode_and_come_back_whole(model, monkeypatch):
    picture_model, entry = PictureModel(model), ImageEntry(150, 210, "RGB")
    image = draw_image(0, (150, 210))
    whole = picture_model.encode(image, 1)
    picture = picture_model.decode(whole, entry)
    monkeypatch.setattr("smalti.models.tiles.WHOLE_PIXELS", 1000)
    monkeypatch.setattr("smalti.models.tiles.TILE", 64)
    cut = picture_model.encode(image, 1)
    assert np.array_equal(cut, model.encode(image).numpy()) and (cut == whole).mean() > 0.999
    assert (picture_model.decode(whole, entry) - picture).abs().max() < 1e-4


# ------------------------------------------------------------------ verified, and within limits


def noisy_after(prior, monkeypatch, calls):
    """The prior's stepper, from its so many-th call on with logits that are off by more than the coder allows for."""
    stepper, count = prior.prior.stepper, iter(range(10**6))

    class Off:
        def __init__(self, *arguments):
            self.stepper, self.noise = stepper(*arguments), 0.01 * (next(count) >= calls)

        def step(self, previous):
            logits = self.stepper.step(previous)
            return logits + self.noise * torch.arange(logits.shape[1])

    monkeypatch.setattr(prior.prior, "stepper", Off)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("good", [0, 1])
def test_a_prior_that_is_too_noisy_is_done_without(good, lossless, model, prior, monkeypatch):
    images = [Image.fromarray(draw_image(index)) for index in range(3)]
    codec = Codec(model, prior, lossless=lossless, images_per_chunk=1)
    with monkeypatch.context() as patch:
        noisy_after(prior, patch, good)
        with pytest.warns(UserWarning, match=f"{3 - good} of 3 chunks are coded by the adaptive coder: rounding moves"):
            data = codec.compress(images)
    with Archive(io.BytesIO(data)) as archive:
        assert [archive.header.coder_of(chunk) for chunk in range(3)] == ["prior"] * good + ["adaptive"] * (3 - good)
        assert bool(archive.header.prior_hash) == bool(good) and data[4] == 1 + bool(good)
        expected = [codec.picture_model.encode(np.asarray(image), 1) for image in images]
        assert all(np.array_equal(codec.read_codes(archive, chunk)[0], expected[chunk]) for chunk in range(3))
    assert len(codec.decompress(data)) == 3
    if not good:
        assert len(Codec(model, lossless=lossless).decompress(data)) == 3  # nobody needs the prior


def test_without_verifying_the_prior_is_trusted(model, prior, monkeypatch):
    noisy_after(prior, monkeypatch, 0)
    with Archive(io.BytesIO(Codec(model, prior, verify=False).compress(draw_image(0)))) as archive:
        assert archive.header.coder == "prior"


@pytest.mark.parametrize("what", ["codes", "pixels", "header"])
def test_what_is_not_read_as_it_was_written_is_never_given_out(what, model, monkeypatch, tmp_path):
    broken = {
        "codes": ("smalti.codec.coders.AdaptiveCoder._read", lambda *_: None),
        "pixels": ("smalti.codec.chunks.unpack_pixels", lambda _, means: [np.zeros((*m.shape[1:], 3)) for m in means]),
        "header": ("smalti.codec.container.Header.read", lambda *_: None),
    }
    monkeypatch.setattr(*broken[what])
    codec = Codec(model, lossless=True)
    with pytest.raises(NotReadBack, match="read as they were written|read as it was written"):
        codec.compress_to(tmp_path / "a.smalti", [codec.picture(draw_image(0))])
    assert not list(tmp_path.iterdir())
    assert Codec(model, lossless=True, verify=False).compress(draw_image(0))


@pytest.mark.parametrize("coder", ["fixed", "adaptive", "histogram"])
@pytest.mark.parametrize("bits", [21, 24])
def test_codebooks_of_millions_are_written_and_read_or_refused(bits, coder, folder):
    model = save_model(folder / f"bits{bits}", {"kind": "binary_quantizer", "bits": bits})
    if coder == "histogram":
        with pytest.raises(SmaltiError, match="at most 1,048,576 codes, not .*; the adaptive coder takes it"):
            Codec(model, coder=coder)
        return
    codec, image = Codec(model, coder=coder), draw_image(0)
    data = codec.compress(image)
    with Archive(io.BytesIO(data)) as archive:
        assert archive.header.codebook_size == 1 << bits
        assert np.array_equal(codec.read_codes(archive, 0)[0], codec.picture_model.encode(image, 1))
    assert len(codec.decompress(data)) == 1 and set(codec.sizes([codec.picture(image)])) == {"fixed", "adaptive"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codebook_size": (1 << 32) + 1}, "4,294,967,297 codes in the codebook"),
        ({"stride": 1025}, "1,025 pixels per code"),
        ({"stride": 0}, "0 pixels per code"),
        ({"depth": 1025}, "1,025 codes at a position"),
        ({"images_per_chunk": 4097}, "4,097 images in a chunk"),
        ({"chunk_bytes": ((1 << 34) + 1,)}, "17,179,869,185 bytes of a chunk"),
        ({"images": ImageTable((1 << 22) + 1, np.array([[8, 8, 0]]))}, "4,194,305 images in a file"),
    ],
)
def test_what_cannot_be_read_is_not_written(changed, message):
    largest = {"codebook_size": 1 << 32, "stride": 1024, "depth": 1024, "images_per_chunk": 4096}
    header = Header(
        coder="adaptive", lossless=False, model_hash="0123456789ab", prior_hash="", chunk_bytes=(1 << 34,),
        images=ImageTable.of([ImageEntry(1 << 20, 190, "LA", "x" * 4096)]), **largest,
    )  # fmt: skip
    assert Header.read(io.BytesIO(header.pack())) == header
    with pytest.raises(SmaltiError, match=f"{message} do not fit into a .smalti file"):
        replace(header, **changed).pack()


@pytest.mark.parametrize(
    ("name", "stored"),
    [("", ""), (".", "."), ("a\nb", "a\nb"), ("\x1b]0;x", "\x1b]0;x"), ("caf\udce9", "caf\ufffd"),
     ("x" * 4096, "x" * 4096), ("x" * 4097, None), ("é" * 2049, None), ("a\0b", None)],
)  # fmt: skip
def test_names_are_stored_or_refused(name, stored, model):
    codec = Codec(model)
    if stored is None:
        with pytest.raises(SmaltiError, match="bytes of an image's name do not fit|contains NUL"):
            codec.compress([draw_image(0)], [name])
        return
    with Archive(io.BytesIO(codec.compress([draw_image(0)], [name]))) as archive:
        assert archive.header.images[0].name == stored


def test_most_pixels_is_the_users_word_on_memory(model):
    data = Codec(model).compress([draw_image(0, (20, 30)), draw_image(1, (4, 4))])
    assert len(Codec(model, most_pixels=600).decompress(data)) == 2
    with pytest.raises(DamagedFile, match="an image of 600 pixels; --most_pixels allows 599"):
        Codec(model, most_pixels=599).decompress(data)
    with pytest.raises(SmaltiError, match="at least 1"):
        Codec(model, most_pixels=0)


def test_another_model_or_prior_is_named(model, prior, folder):
    other = save_model(folder / "other", {"kind": "vector_quantizer", "codebook_size": K, "code_dim": 8})
    data = Codec(model).compress(draw_image(0))
    with pytest.raises(CannotDecode, match=f"needs the model {model.source_hash[:12]}"):
        Codec(other).decompress(data)
    coded = Codec(model, prior).compress(draw_image(0))
    with pytest.raises(CannotDecode, match=f"needs the prior {prior.source_hash[:12]}"):
        Codec(model).decompress(coded)
    with pytest.raises(SmaltiError, match="this prior models the codes of"):
        Codec(other, save_prior(folder / "of_model", model, folder / "model"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(
            ImageEntry,
            st.integers(1, 3000),
            st.integers(1, 3000),
            st.sampled_from(["RGB", "L", "RGBA", "LA"]),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["fixed", "prior"]),
)
def test_headers_come_back(entries, per_chunk, lossless, coder):
    chunks = chunks_of(entries, per_chunk)
    assert [index for chunk in chunks for index in chunk] == list(range(len(entries)))
    assert chunks == chunks_of(ImageTable.of(entries), per_chunk)
    assert list(map(len, chunks)) == [len(part) for part in cut(entries, lambda entry: entry.num_pixels, per_chunk)]
    header = Header(
        coder=coder, lossless=lossless, codebook_size=8192, stride=8, depth=2, model_hash="0123456789ab",
        prior_hash="ba9876543210" if coder == "prior" else "", images_per_chunk=per_chunk,
        images=ImageTable.of(entries), chunk_bytes=tuple(range(5, 5 + len(chunks))),
    )  # fmt: skip
    packed = header.pack()
    file = io.BytesIO(packed + b"more")
    assert Header.read(file) == header and file.tell() == len(packed)


def test_the_container_of_one_image_takes_at_most_40_bytes(model, prior):
    data = Codec(model, prior).compress(draw_image(0, (64, 64)))
    with Archive(io.BytesIO(data)) as archive:
        parts = archive.parts()
    assert parts["header"] + parts["checks"] <= 40 and sum(parts.values()) == len(data)


def test_a_model_without_a_file_or_of_one_size_only_is_refused(model, folder):
    from smalti.models.autoencoder import Autoencoder

    with pytest.raises(SmaltiError, match="load the model from a folder"):
        Codec(Autoencoder(model.config))
    with pytest.raises(SmaltiError, match="no image"):
        Codec(model).compress([])
