"""Streams give what `open_data` gives, in parts, from any image on, without holding them; tar files; addresses."""

import json

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

import smalti
from smalti.data import hub, tars
from smalti.data.places import expanded, places_of
from smalti.data.sources import open_data, open_stream
from smalti.data.streams import stream_of
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Reading

from .conftest import png, write_tar

READING = Reading(3)


def rows(stream, start=0):
    return [(own.key, own.split, own.label, own.caption) for part in stream.parts for own in part.examples(start)]


def write_parquet(path, numbers, **columns):
    images = [{"bytes": png(number), "path": None} for number in numbers]
    table = arrow.table({"image": images, "label": [number % 3 for number in numbers],
                         "caption": [f"number {number}" for number in numbers], **columns})  # fmt: skip
    parquet.write_table(table, path, row_group_size=4)


def test_parquet_files_stream_as_they_open(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", range(11))
    write_parquet(tmp_path / "test-0.parquet", range(11, 20))
    name = str(tmp_path / "*.parquet")
    stream, source = open_stream(name), open_data(name)
    assert [part.num_images for part in stream.parts] == [9, 11]
    assert rows(stream) == rows(stream_of(source)) and stream.fingerprint == source.fingerprint
    first = [own for part in stream.parts for own in part.examples(0)]
    assert [own.number for own in first] == list(range(20))
    for index, own in enumerate(first):
        assert np.array_equal(own.read(READING), source.read(index, READING))
    for start in (1, 4, 7, 10):
        assert [own.key for own in stream.parts[1].examples(start)] == [own.key for own in first[9 + start :]]
    train = open_stream(name, "train")
    assert [row[0] for row in rows(train)] == [source.name_of(index) for index in range(20)
                                               if source.splits[index] == "train"]  # fmt: skip


def test_a_column_of_splits_is_heard(tmp_path):
    write_parquet(tmp_path / "all.parquet", range(6), split=["train", "test"] * 3)
    name = str(tmp_path / "all.parquet")
    assert rows(open_stream(name)) == rows(stream_of(open_data(name)))
    assert {row[1] for row in rows(open_stream(name))} == {"train", "test"}


def test_tar_files_stream_and_open_alike(tars):
    name = str(tars / "images-{000..002}.tar")
    stream, source = open_stream(name), open_data(name)
    assert [part.name for part in stream.parts] == [f"images-{number:03}.tar" for number in range(3)]
    assert rows(stream)[10] == ("images-001.tar/0010", source.splits[10], "2", "record 10")
    assert [row[0] for row in rows(stream)] == list(source.names)
    assert [row[2] for row in rows(stream)] == source.labels["class"]
    assert [{"en": row[3]} for row in rows(stream)] == source.captions
    assert [row[1] for row in rows(stream)] == list(source.splits)
    for index, own in enumerate(own for part in stream.parts for own in part.examples(0)):
        assert np.array_equal(own.read(READING), source.read(index, READING))
    assert [own.key for own in stream.parts[0].examples(7)] == ["images-000.tar/0007", "images-000.tar/0008"]


@pytest.mark.parametrize(("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")])
def test_compressed_tar_files_can_only_be_read_in_order(suffix, mode, tmp_path):
    path = write_tar(tmp_path / f"a{suffix}", {"1.png": png(1), "1.txt": b"one", "2.png": png(2)}, mode)
    assert [(row[0], row[3]) for row in rows(open_stream(str(path)))] == [
        (f"{path.name}/1", "one"),
        (f"{path.name}/2", ""),
    ]
    assert [own.key for own in open_stream(str(path)).parts[0].examples(1)] == [f"{path.name}/2"]
    with pytest.raises(SmaltiError, match="is compressed and can only be read in order: unpack it"):
        open_data(str(path))


def test_what_a_tar_file_may_hold(tmp_path):
    """Keys come twice, texts before images, files without an image, hidden files, folders, dots."""
    from conftest import draw_image

    files = {"./a/1.txt": b"first", "./a/1.png": png(0), "lost.json": b"{}", "a/._1.png": b"mac", "b/2.seg.png": png(1),
             "3.json": json.dumps({"label": 7, "text": "of a record"}).encode(), "3.png": png(2), "4.png": b"bad",
             "a/1.png": png(3)}  # fmt: skip
    stream = open_stream(str(write_tar(tmp_path / "t.tar", files)))
    found = list(stream.parts[0].examples(0))
    assert [(own.key, own.label, own.caption) for own in found] == [
        ("t.tar/a/1", "", "first"), ("t.tar/3", "7", "of a record"), ("t.tar/4", "", ""), ("t.tar/a/1#2", "", "")
    ]  # fmt: skip
    assert np.array_equal(found[3].read(READING), draw_image(3, (16, 16)))
    with pytest.raises(SmaltiError, match="t.tar/4.png: not an image"):
        found[2].read(READING)


def test_a_tar_file_that_is_cut_off_is_named(tmp_path):
    path = write_tar(tmp_path / "t.tar", {f"{number}.png": png(number) for number in range(5)})
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(SmaltiError, match="t.tar: cut off or no tar file, after 2 images"):
        rows(open_stream(str(path)))
    path.write_bytes(whole[: 2 * 1024])  # between two files
    with pytest.raises(SmaltiError, match="cut off or no tar file, after 1 images .*its end is missing"):
        rows(open_stream(str(path)))


def test_a_stream_of_tars_keeps_nothing_of_what_it_has_read(tmp_path):
    """The library would keep a record of each member."""
    import tarfile
    import tracemalloc

    path = write_tar(tmp_path / "t.tar", {f"{number:05}.png": png(0) for number in range(3000)})
    examples = open_stream(str(path)).parts[0].examples(0)
    next(examples)
    tracemalloc.start()
    for _ in range(200):
        next(examples)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(2500):
        next(examples)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2500 * 200 and tarfile.TarInfo.__sizeof__  # a key each, to tell those that come twice


def test_addresses_stream_through_fsspec(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for number in range(2):
        path = write_tar(tmp_path / f"a-{number}.tar", {"1.png": png(number), "1.cls": b"x"})
        system.pipe(f"/images/a-{number}.tar", path.read_bytes())
    write_parquet(tmp_path / "p.parquet", range(6))
    system.pipe("/images/p.parquet", (tmp_path / "p.parquet").read_bytes())
    stream = open_stream("memory://images/a-{0..1}.tar")
    assert [(row[0], row[2]) for row in rows(stream)] == [("a-0.tar/1", "x"), ("a-1.tar/1", "x")]
    assert rows(open_stream("memory://images/p.parquet")) == rows(open_stream(str(tmp_path / "p.parquet")))
    print_before = stream.fingerprint
    system.pipe("/images/a-1.tar", b"0" * 5)
    assert open_stream("memory://images/a-{0..1}.tar").fingerprint != print_before
    with pytest.raises(SmaltiError, match="can only be read in order: turn it into codes with smalti tokenize"):
        open_data("memory://images/a-0.tar")
    with pytest.raises(SmaltiError, match="no such file"):
        open_stream("memory://nothing/*.tar")


def test_the_hub_streams_through_datasets(tmp_path):
    """A folder stands for the hub."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]),
                                 text=datasets.Value("string"))  # fmt: skip
    (tmp_path / "data").mkdir()
    for split, numbers in (("train", range(5)), ("test", range(5, 8))):
        images = [{"bytes": png(number), "path": None} for number in numbers]
        columns = {"image": images, "label": [number % 2 for number in numbers], "text": ["a"] * len(images)}
        datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    stream = open_stream(f"hf:{tmp_path}")
    assert [(part.name, part.num_images) for part in stream.parts] == [("train-00000", None), ("test-00000", None)]
    found = rows(stream)
    assert [row[0] for row in found] == [*(f"train-00000#{row}" for row in range(5)),
                                         *(f"test-00000#{row}" for row in range(3))]  # fmt: skip
    assert found[1] == ("train-00000#1", found[1][1], "dog", "a") and {row[1] for row in found[5:]} == {"test"}
    first, source = next(stream.parts[1].examples(0)), open_data(str(tmp_path / "data" / "test*.parquet"))
    assert np.array_equal(first.read(READING), source.read(0, READING))
    assert [own.key for own in stream.parts[0].examples(3)] == ["train-00000#3", "train-00000#4"]
    assert len(stream.fingerprint) == 64


def test_the_hub_needs_a_library(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SmaltiError, match=r"needs datasets: pip install 'smalti\[streams\]'"):
        open_stream("hf:somebody/pictures")
    with pytest.raises(SmaltiError, match="can only be read in order"):
        open_data("hf:somebody/pictures")
    assert hub.is_hub("hf:a/b") and not hub.is_hub("runs/hf") and tars.is_tar("A.TAR")


def test_names_with_braces(tmp_path):
    assert expanded("a") == ["a"] and expanded("{x}{1..2}") == ["{x}1", "{x}2"]
    (tmp_path / "a-{0..9}.tar").write_bytes(b"")
    assert [place.name for place in places_of(str(tmp_path / "a-{0..9}.tar"))] == ["a-{0..9}.tar"]
    with pytest.raises(SmaltiError, match=r"b-1.tar.*no such file; correct the name, or the numbers in its braces"):
        places_of(str(tmp_path / "b-{1..2}.tar"))


def test_a_prior_learns_from_shards_what_it_learns_from_images(tokenizer, pictures, tmp_path):
    """The same batches, losses and weights; also where codes are mapped from a file, and after an interruption."""
    from smalti.recipes import pixelcnn
    from smalti.training.loop import train

    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(tmp_path / "codes"), rows_per_shard=4, workers=1)

    def trained(name, data, steps=6):
        recipe = pixelcnn(tokenizer=str(tokenizer), data=str(data), channels=4, layers=1, warmup=2, label="class")
        run = train(recipe.with_settings(steps=steps, batch_size=4, validate_every=3, checkpoint_every=2, device="cpu"),
                    tmp_path / name, progress=False)  # fmt: skip
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines], (run / "model.safetensors").read_bytes()

    with pytest.warns(UserWarning, match="skipped 1 bad image"):
        of_images = trained("images", pictures)
    assert trained("shards", tmp_path / "codes") == of_images
    assert not (tmp_path / "shards" / "codes-train.safetensors").exists()


def test_codes_that_do_not_fit_into_memory_are_mapped(tokenizer, pictures, tmp_path, monkeypatch):
    from smalti.recipes import pixelcnn
    from smalti.training import shard_codes
    from smalti.training.codes import load_codes

    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(tmp_path / "codes"), rows_per_shard=4, workers=1)
    config, source = pixelcnn(tokenizer=str(tokenizer)).model, open_data(tmp_path / "codes", "train")
    held = load_codes(config, source, tmp_path)
    monkeypatch.setattr(shard_codes, "MEMORY_BYTES", 0)
    mapped = load_codes(config, source, tmp_path)
    assert (tmp_path / "codes-train.npy").exists() and (mapped.codes == held.codes).all()
    stamp = (tmp_path / "codes-train.npy").stat().st_mtime_ns
    load_codes(config, source, tmp_path)
    assert (tmp_path / "codes-train.npy").stat().st_mtime_ns == stamp


def test_codes_of_another_tokenizer_or_damaged_shards_are_refused(tokenizer, pictures, tmp_path):
    from smalti.models.autoencoder import Autoencoder
    from smalti.recipes import pixelcnn, vqvae
    from smalti.training.codes import load_codes

    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(tmp_path / "codes"), rows_per_shard=4, workers=1)
    other = Autoencoder(vqvae(image_size=16, width=8, codebook_size=300).model)
    other.save_pretrained(tmp_path / "other")
    source = open_data(tmp_path / "codes")
    with pytest.raises(SmaltiError, match="this prior models the codes of the tokenizer"):
        load_codes(pixelcnn(tokenizer=str(tmp_path / "other")).model, source, None)
    with pytest.raises(SmaltiError, match="holds codes, no images"):
        source.read(0)
    with pytest.raises(SmaltiError, match="holds codes, no images"):
        smalti.evaluate(str(tokenizer), str(tmp_path / "codes"), split="train", distances="none")
    assert smalti.info(str(tmp_path / "codes"))["notes"] != []
    shard = next((tmp_path / "codes" / "codes").iterdir())
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(SmaltiError, match="missing or damaged: it is not what manifest.json names"):
        load_codes(pixelcnn(tokenizer=str(tokenizer)).model, source, None)
