import gzip
import struct
import warnings

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.data.batches import CHANCES, Batches, Pixels, augmented, some_images
from smalti.data.emoji import read_table
from smalti.data.idx import read_idx
from smalti.data.sources import open_data
from smalti.data.splits import SPLITS
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Preprocessing, Reading

SMALL, TINY = Preprocessing(image_size=16), Preprocessing(image_size=8)

# ------------------------------------------------------------------ emoji


def test_emoji_has_everything_it_promises():
    source = open_data("emoji")
    assert len(source) == 3771
    assert source.read(0).shape == (64, 64, 3)
    assert {"group", "subgroup"} == set(source.labels)
    assert all(len(captions) == 14 and captions["en"] for captions in source.captions)
    named = {captions["en"]: index for index, captions in enumerate(source.captions)}
    heart = source.read(named["red heart"])
    assert heart[32, 32, 0] > 150 and heart[32, 32, 1] < 100  # it is red
    assert source.labels["subgroup"][named["red heart"]] == "heart"


def test_emoji_twins_never_straddle_the_split():
    split_of = {}
    for row in read_table()["rows"]:
        assert split_of.setdefault(row["concept"], row["split"]) == row["split"]
    tones = [row for row in read_table()["rows"] if "skin tone" in row["captions"]["en"]]
    by_base = {}
    for row in tones:
        by_base.setdefault(row["captions"]["en"].split(":")[0], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in by_base.values())


def test_emoji_splits_are_disjoint_and_complete():
    counts = {split: len(open_data("emoji", split)) for split in SPLITS}
    assert counts["all"] == counts["train"] + counts["validation"] + counts["test"]
    assert counts["test"] >= 300 and counts["validation"] >= 300
    groups = [set(np.array(open_data("emoji").labels["group"])[list(open_data("emoji", s).indices)]) for s in SPLITS]
    assert all(group == groups[-1] for group in groups)


# ------------------------------------------------------------------ folders


def test_folder_reads_names_and_classes(image_folder):
    source = open_data(image_folder)
    assert len(source) == 40 and set(source.labels["class"]) == {"circle", "disc"}
    assert sum(len(open_data(image_folder, split)) for split in ("train",)) > 30


def test_adding_an_image_moves_no_other_one(tmp_path):
    for index in range(150):
        Image.fromarray(draw_image(index, (8, 8))).save(tmp_path / f"{index}.png")
    before = {
        split: {open_data(tmp_path, split).name_of(i) for i in range(len(open_data(tmp_path, split)))}
        for split in SPLITS
    }
    Image.fromarray(draw_image(99, (8, 8))).save(tmp_path / "0000.png")
    for split in SPLITS:
        source = open_data(tmp_path, split)
        assert before[split] <= {source.name_of(i) for i in range(len(source))}


def test_folders_named_like_splits_are_the_splits(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        (tmp_path / split / "cat").mkdir(parents=True)
        for index in range(count):
            Image.fromarray(draw_image(index)).save(tmp_path / split / "cat" / f"{index}.png")
    assert [len(open_data(tmp_path, split)) for split in ("train", "validation", "test")] == [3, 2, 1]
    assert set(open_data(tmp_path).labels["class"]) == {"cat"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_captions_come_from_metadata(tmp_path, kind):
    Image.fromarray(draw_image(0)).save(tmp_path / "a.png")
    Image.fromarray(draw_image(1)).save(tmp_path / "b.png")
    text = {"csv": 'file_name,text\na.png,"a disc, red"\n', "jsonl": '{"file_name": "a.png", "text": "a disc, red"}\n'}[
        kind
    ]
    (tmp_path / f"metadata.{kind}").write_text(text)
    assert list(open_data(tmp_path).captions) == [{"en": "a disc, red"}, {}]
    (tmp_path / f"metadata.{kind}").write_text({"csv": "name,text\na.png,x\n", "jsonl": "{nonsense\n"}[kind])
    with pytest.raises(SmaltiError, match="needs the columns file_name and text"):
        open_data(tmp_path)


def test_bad_files_in_a_folder_are_skipped_and_counted(tmp_path):
    for index in range(3):
        Image.fromarray(draw_image(index)).save(tmp_path / f"{index}.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="skipped 2 bad images; the first: .*empty.png"):
        pixels = Pixels(open_data(tmp_path), TINY)
    assert len(pixels) == 3 and len(pixels.bad) == 2
    streamed = Pixels(open_data(tmp_path), TINY, memory_bytes=0)
    assert streamed.gather([0, 1, 2, 3, 4]).shape == (5, 8, 8, 3)


def test_reading_by_threads_leaves_the_filters_of_warnings_as_they_were(image_folder, monkeypatch):
    """`warnings.catch_warnings` is no thing for threads: who leaves last puts back what another had set."""
    monkeypatch.setattr("smalti.data.batches.reading_threads", lambda: 8)
    before = list(warnings.filters)
    for _ in range(20):
        Pixels(open_data(image_folder), TINY)
        assert warnings.filters == before


def test_too_few_good_images_is_an_error(tmp_path):
    Image.fromarray(draw_image(0)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(SmaltiError, match="only 1 of 2 images can be read; the first: .*b.png"):
        Pixels(open_data(tmp_path), TINY)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "no such folder"),
        (lambda p: p, "no images in this folder"),
        (lambda p: ((p / "f.txt").write_text("") and None) or p / "f.txt", "a file was given"),
        (lambda p: p / "*.parquet", "no such file"),
    ],
)
def test_no_data_is_a_one_line_error(tmp_path, make, message):
    with pytest.raises(SmaltiError, match=message):
        open_data(make(tmp_path))


def test_unknown_and_empty_splits_are_named(tmp_path):
    (tmp_path / "train").mkdir()
    Image.fromarray(draw_image(0)).save(tmp_path / "train" / "a.png")
    with pytest.raises(SmaltiError, match="no images in the test split.*choose another"):
        open_data(tmp_path, "test")


# ------------------------------------------------------------------ idx and parquet


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_are_read_with_labels_and_splits(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (24, 5, 5), dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(24, dtype=np.uint8) % 10)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images[:6]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(6, dtype=np.uint8)))
    assert [len(open_data(tmp_path, split)) for split in ("train", "validation", "test")] == [22, 2, 6]
    source = open_data(tmp_path, "test")
    assert source.channels == 1 and np.array_equal(source.read(3)[:, :, 0], images[3])
    assert source.read(3, Reading(3)).shape == (5, 5, 3)


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x00\x08", b"\x00\x00\x08\x03\x00", b"hello world", idx(np.zeros((2, 3, 3), np.uint8))[:-1]]
)
def test_bad_idx_files_are_named(tmp_path, data):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(SmaltiError, match="train-images"):
        read_idx(path)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)))[:-9])
    with pytest.raises(SmaltiError, match="cut off or not gzip"):
        read_idx(path)


def write_parquet(path, count, start=0):
    rows = []
    for index in range(start, start + count):
        import io

        file = io.BytesIO()
        Image.fromarray(draw_image(index, (8, 8))).save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": f"{index}.png"})
    table = arrow.table(
        {"image": rows, "label": [i % 3 for i in range(count)], "text": [f"picture {i}" for i in range(count)]}
    )
    parquet.write_table(table, path, row_group_size=4)


def test_parquet_is_read_by_row_groups(tmp_path):
    write_parquet(tmp_path / "my-train.parquet", 10)
    write_parquet(tmp_path / "my-test.parquet", 5, start=10)
    source = open_data(str(tmp_path / "*.parquet"), "test")
    assert len(source) == 5 and source.labels["class"][0] == "0"
    assert np.array_equal(source.read(4), draw_image(14, (8, 8)))
    everything = open_data(str(tmp_path / "*.parquet"))
    order = np.random.default_rng(0).permutation(15)
    named = {everything.name_of(int(i)): everything.read(int(i)) for i in order}
    assert np.array_equal(named["my-train.parquet#7"], draw_image(7, (8, 8)))
    assert everything.captions[0] == {"en": "picture 0"}


def test_bad_parquet_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(SmaltiError, match="a.parquet: cut off or not parquet"):
        open_data(str(tmp_path / "a.parquet"))
    parquet.write_table(arrow.table({"picture": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SmaltiError, match="no column 'image'.*it has picture"):
        open_data(str(tmp_path / "a.parquet"))


# ------------------------------------------------------------------ batches


def test_streamed_batches_equal_those_in_memory(image_folder):
    held = Batches(Pixels(open_data(image_folder), SMALL), 5, seed=3, augment="flip_shift")
    streamed = Batches(
        Pixels(open_data(image_folder), SMALL, memory_bytes=0),
        5,
        seed=3,
        augment="flip_shift",
        workers=2,
    )
    assert held.pixels.memory is not None and streamed.pixels.memory is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch about forking
        iterator = streamed.iterate(4)
        for step in (4, 5, 6):
            assert torch.equal(next(iterator), held.batch(step))


def test_a_batch_is_a_function_of_seed_rank_and_step(image_folder):
    pixels = Pixels(open_data(image_folder), SMALL)
    make = lambda **options: Batches(pixels, 4, **{"seed": 0, "augment": "flip", **options})  # noqa: E731
    assert torch.equal(make().batch(7), make().batch(7))
    assert not torch.equal(make().batch(7), make().batch(8))
    assert not torch.equal(make().batch(7), make(seed=1).batch(7))
    assert not torch.equal(make(world=2).batch(7), make(world=2, rank=1).batch(7))


@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_shows_every_image_once(image_folder, world):
    pixels = Pixels(open_data(image_folder), SMALL)
    batches = [Batches(pixels, 5, seed=0, rank=rank, world=world) for rank in range(world)]
    for epoch in range(2):
        places = range(epoch * 40, epoch * 40 + 40)
        assert sorted(batches[0].order(places[0], 40)) == list(range(40))
    seen = torch.cat([batch.batch(step) for step in range(8 // world) for batch in batches])
    assert len({image.numpy().tobytes() for image in seen}) == 40


def test_augmentation_keeps_the_source_untouched_and_the_size():
    pixels = np.stack([draw_image(i) for i in range(6)])
    before = pixels.copy()
    for mode in ("flip", "flip_shift"):
        result = augmented(pixels, mode, np.random.default_rng(0).random((len(pixels), CHANCES)))
        assert result.shape == pixels.shape and np.array_equal(pixels, before)
        result[:] = 0
        assert np.array_equal(pixels, before)


@pytest.mark.parametrize("binarize", ["fixed", "dynamic"])
def test_some_images_are_those_that_the_model_sees(image_folder, binarize):
    """A model of binary images was shown grey ones wherever somebody forgot how it was trained."""
    preprocessing = Preprocessing(image_size=16, channels=1, binarize=binarize)
    images = some_images(str(image_folder), "train", preprocessing, 5)
    assert images.shape == (5, 1, 16, 16) and set(images.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(images, some_images(str(image_folder), "train", preprocessing, 5))


def test_fixed_binarisation_is_a_draw_that_never_changes(image_folder):
    source = open_data(image_folder, "train")
    fixed = Preprocessing(image_size=16, channels=1, binarize="fixed")
    grey, binary = Pixels(source, Preprocessing(image_size=16, channels=1)), Pixels(source, fixed)
    streamed = Pixels(source, fixed, memory_bytes=0)
    everything = range(len(source))
    drawn = binary.gather(everything)
    assert set(np.unique(drawn)) <= {0, 255}
    assert np.array_equal(drawn, streamed.gather(everything))
    assert abs(drawn.mean() - grey.gather(everything).mean()) < 3
    assert (drawn[grey.gather(everything) == 0] == 0).all() and (drawn[grey.gather(everything) == 255] == 255).all()
