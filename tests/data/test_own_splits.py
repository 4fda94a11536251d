"""Validation and test images of one's own: `--validation`, `--test`, and a column of splits."""

import csv
import io
import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from smalti.configs import from_dict, to_dict
from smalti.data.batches import Pixels
from smalti.data.conditions import captions_of, labels_of
from smalti.data.config import DataConfig
from smalti.data.emoji import read_table
from smalti.data.sources import open_data
from smalti.data.splits import SPLITS
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Preprocessing, Reading

KINDS = ("folder", "idx", "parquet", "emoji")
COMBINATIONS = ["-".join(kinds) for kinds in itertools.product(KINDS, (*KINDS, "none"), (*KINDS, "none"))]
PARTS = SPLITS[:-1]


def noise(seed: int, channels: int = 3) -> np.ndarray:
    """An 8x8 image like no other: its content tells which it is."""
    return np.random.default_rng([seed, channels]).integers(0, 256, (8, 8, channels), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(folder: Path, seed: int) -> str:
    """30 images, of which a folder and a column name some to be held out."""
    (folder / "test").mkdir(parents=True)
    (folder / "cat").mkdir()
    names = [f"{'test' if index < 2 else 'cat'}/{index}.png" for index in range(30)]
    for index, name in enumerate(names):
        (folder / name).write_bytes(png(noise(seed + index)))
    write_csv(folder, [("cat/28.png", "test"), ("cat/29.png", "validation"), ("cat/27.png", "train")])
    return str(folder)


def write_csv(folder: Path, rows: list[tuple[str, str]]) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "split"), *rows])


def write_idx(folder: Path, seed: int) -> str:
    folder.mkdir(parents=True)
    for stem, count, first in (("train", 24, seed), ("t10k", 5, seed + 24)):
        images = np.stack([noise(first + index, 1)[:, :, 0] for index in range(count)])
        path = folder / f"{stem}-images-idx3-ubyte"
        path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
    return str(folder)


def write_parquet(path: Path, seed: int, count: int = 30, **columns) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": png(noise(seed + index)), "path": ""} for index in range(count)]
    parquet.write_table(arrow.table({"image": cells, **columns}), path, row_group_size=7)
    return str(path)


def with_column(path: Path, seed: int) -> str:
    return write_parquet(path, seed, split=["test", "VAL", " validation ", "Training", "", *[None] * 25])


@pytest.fixture(autouse=True)
def few_emoji(monkeypatch):
    table = read_table()
    monkeypatch.setattr("smalti.data.sources.read_table", lambda: {**table, "rows": table["rows"][:40]})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """For each kind three data sets without a common image; emoji are always the same."""
    root, made = tmp_path_factory.mktemp("data"), {"emoji": ("emoji",) * 3}
    for kind, write in (("folder", write_folder), ("idx", write_idx)):
        made[kind] = tuple(write(root / kind / role, 1000 * place) for place, role in enumerate("abc"))
    made["parquet"] = tuple(
        with_column(root / f"{role}.parquet", 5000 + 1000 * place) for place, role in enumerate("abc")
    )
    return made


def contents(data, split="all") -> list[bytes]:
    """The pixels of a part of the data, (H, W, 3) each; nothing for an empty one."""
    try:
        source = open_data(data, split)
    except SmaltiError as error:
        assert "no images in the" in str(error)
        return []
    return [source.read(index, Reading()).tobytes() for index in range(len(source))]


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_splits_are_disjoint_and_the_test_split_is_the_test_data(combination, data):
    kinds = combination.split("-")
    names = [data[kind][place] if kind in data else "" for place, kind in enumerate(kinds)]
    config = DataConfig(data=names[0], validation=names[1], test=names[2])
    if kinds.count("emoji") > 1:
        with pytest.raises(SmaltiError, match="emoji: nothing is left, for all of its images are in emoji too"):
            open_data(config)
        return
    found = {split: contents(config, split) for split in SPLITS}
    plain = {split: set(contents(names[0], split)) for split in PARTS}
    for one, other in itertools.combinations(PARTS, 2):
        assert not set(found[one]) & set(found[other])
    assert sorted(found["all"]) == sorted(image for split in PARTS for image in found[split])
    for split, name in config.elsewhere.items():
        assert found[split] == contents(name)
    for split in {"validation", "test"} - config.elsewhere.keys():
        assert set(found[split]) == plain[split]
    assert plain["train"] <= set(found["train"])
    named = {"folder": 4, "idx": 5, "parquet": 3}.get(kinds[0])
    if named and names[1] and names[2]:  # what the data itself names to be held out is all that is missing
        assert len(found["train"]) == len(open_data(names[0])) - named


def test_images_named_so_are_never_trained_on(data):
    for kind, named in (("folder", {"test/1.png", "test/2.png", "cat/28.png"}), ("parquet", {"a.parquet#0"})):
        source = open_data(DataConfig(data=data[kind][0], test=data["idx"][2]), "train")
        assert not named & {source.name_of(index) for index in range(len(source))}


def test_nothing_is_held_out_by_a_hash_for_a_split_that_is_elsewhere(tmp_path):
    first = write_parquet(tmp_path / "x-train.parquet", 0, 100)
    other = write_parquet(tmp_path / "x-test.parquet", 500, 9)
    third = write_parquet(tmp_path / "more.parquet", 700, 4)
    assert [len(contents(first, split)) for split in PARTS] == [96, 4, 0]
    assert [len(open_data(DataConfig(data=first, test=other), split)) for split in PARTS] == [96, 4, 9]
    all_own = DataConfig(data=first, validation=third, test=other)
    assert [len(open_data(all_own, split)) for split in PARTS] == [100, 4, 9]
    plain = write_parquet(tmp_path / "plain.parquet", 800, 100)
    held = {split: len(open_data(plain, split)) for split in PARTS}
    assert len(open_data(DataConfig(data=plain, test=other), "train")) == held["train"] + held["test"]
    assert len(open_data(DataConfig(data=plain, validation=other), "train")) == held["train"] + held["validation"]


def test_images_that_two_data_hold_are_test_images_only(tmp_path):
    folder, inside = tmp_path / "all", tmp_path / "all" / "chosen"
    inside.mkdir(parents=True)
    for index in range(30):
        ((inside if index < 7 else folder) / f"{index}.png").write_bytes(png(noise(index)))
    (tmp_path / "link").symlink_to(inside)
    for name in (inside, tmp_path / "link"):
        with pytest.warns(UserWarning, match=rf"all: left out 7 images that are in .*{name.name} too"):
            source = open_data(DataConfig(data=folder, test=name), "train")
        assert not {source.read(index, Reading()).tobytes() for index in range(len(source))} & set(contents(inside))
    with pytest.raises(SmaltiError, match="chosen: nothing is left, for all of its images are in .*all too"):
        open_data(DataConfig(data=inside, test=folder), "train")
    for number in range(3):
        write_parquet(tmp_path / f"part-{number}.parquet", 100 * number, 10)
    config = DataConfig(data=tmp_path / "part-*.parquet", test=tmp_path / "part-1.parquet")
    with pytest.warns(UserWarning, match="left out 10 images"):
        assert set(contents(config, "test")) == set(contents(tmp_path / "part-1.parquet"))
    with pytest.warns(UserWarning, match="left out 10 images"):
        assert len(open_data(config)) == 30


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_column_wins_over_folders_but_one_called_test_and_an_empty_value_over_nothing(tmp_path, kind):
    for name in ("train/a.png", "train/b.png", "test/c.png", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(noise(0)))
    rows = [
        ("train/a.png", "Test"),
        ("train/b.png", ""),
        ("test/c.png", "training"),
        ("d.png", "val"),
        ("no.png", "test"),
    ]
    write_csv(tmp_path, rows)
    if kind == "jsonl":
        (tmp_path / "metadata.csv").unlink()
        lines = [json.dumps({"file_name": name, "split": split or None}) for name, split in rows]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    found = {split: open_data(tmp_path, split) for split in PARTS}
    names = {split: {source.name_of(index) for index in range(len(source))} for split, source in found.items()}
    assert names == {"train": {"train/b.png"}, "validation": {"d.png"}, "test": {"train/a.png", "test/c.png"}}
    assert not open_data(tmp_path).captions


def test_a_column_stands_beside_captions_and_in_folders_below(tmp_path):
    below = tmp_path / "birds"
    below.mkdir()
    (below / "a.png").write_bytes(png(noise(0)))
    (below / "metadata.csv").write_text("file_name,text,split\na.png,a wren,test\n")
    source = open_data(tmp_path, "test")
    assert len(source) == 1 and captions_of(source, ["en"]) == [["a wren"]]


def test_a_column_of_parquet_wins_over_the_files_name(tmp_path):
    write_parquet(tmp_path / "x-train.parquet", 0, 4, split=["test", "valid", None, ""])
    assert [len(open_data(tmp_path / "x-train.parquet", split)) for split in PARTS] == [2, 1, 1]
    write_parquet(tmp_path / "x-test.parquet", 0, 4, split=["train", "valid", None, "test"])
    assert len(open_data(tmp_path / "x-test.parquet", "test")) == 4


def test_another_word_is_refused_with_value_file_and_row(tmp_path):
    write_parquet(tmp_path / "a.parquet", 0, 3, split=["test", None, "tset"])
    with pytest.raises(SmaltiError, match=r"a\.parquet: row 2: the split 'tset' is none of train, validation, test"):
        open_data(tmp_path / "a.parquet")
    (tmp_path / "a.png").write_bytes(png(noise(0)))
    write_csv(tmp_path, [("b.png", "train"), ("a.png", "dev")])
    with pytest.raises(SmaltiError, match=r"metadata\.csv: row 2, a\.png: the split 'dev' is none of"):
        open_data(tmp_path)
    (tmp_path / "metadata.csv").write_text("name,split\na.png,test\n")
    with pytest.raises(SmaltiError, match="needs the columns file_name and text or split"):
        open_data(tmp_path)


def test_channels_are_those_of_the_training_images(data):
    grey, colour = data["idx"][0], data["folder"][2]
    for first, other, channels in ((grey, colour, 1), (colour, grey, 3)):
        source = open_data(DataConfig(data=first, test=other), "test")
        assert source.channels == channels and source.read(0).shape == (8, 8, channels)


def test_labels_and_captions_are_those_of_all_parts(tmp_path):
    first = write_parquet(tmp_path / "a.parquet", 0, 4, label=["a", "b", "a", "b"], text=["1", "2", "3", "4"])
    other = write_parquet(tmp_path / "b.parquet", 50, 3, label=["c", "c", "a"])
    config = DataConfig(data=first, test=other)
    assert sorted(set(labels_of(open_data(config), "class"))) == ["a", "b", "c"]
    assert labels_of(open_data(config, "test"), "class") == ["c", "c", "a"]
    assert captions_of(open_data(config, "train"), ["en"])[0] == ["1"]
    with pytest.raises(SmaltiError, match=r"b.parquet#0 has no caption in en"):
        captions_of(open_data(config, "test"), ["en"])
    with pytest.raises(SmaltiError, match=r"a\.parquet \(test: .*\) has no labels of the kind 'class'; it has: none"):
        labels_of(open_data(DataConfig(data=first, test=write_parquet(tmp_path / "c.parquet", 90, 3))), "class")


def test_fixed_binarisation_of_the_training_images_is_that_of_the_data_alone(data):
    fixed = Preprocessing(image_size=8, channels=1, binarize="fixed")
    plain, beside = (
        Pixels(open_data(config, "train"), fixed).gather(range(20))
        for config in (data["idx"][0], DataConfig(data=data["idx"][0], test=data["idx"][1]))
    )
    assert np.array_equal(plain, beside)
    held, streamed = (
        Pixels(open_data(DataConfig(data=data["idx"][0], test=data["folder"][2]), "test"), fixed, memory_bytes=limit)
        for limit in (1 << 20, 0)
    )
    assert torch.equal(held.evenly(9), streamed.evenly(9))


def test_the_record_reads_well_and_survives_json():
    config = DataConfig(data=Path("photos"), validation="more", test="emoji")
    assert str(config) == "photos (validation: more, test: emoji)" and str(DataConfig.of("photos")) == "photos"
    assert from_dict(DataConfig, json.loads(json.dumps(to_dict(config)))) == config
