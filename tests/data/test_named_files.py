"""Parquet and idx files under the names that people give them, and what is no data."""

import os

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from smalti.data.sources import open_data
from smalti.errors import SmaltiError


def test_files_under_several_names_are_read_once_and_for_testing(tmp_path):
    images = arrow.table({"image": [b"x"] * 3})
    parquet.write_table(images, tmp_path / "x-train.parquet")
    (tmp_path / "x-test.parquet").symlink_to(tmp_path / "x-train.parquet")
    os.link(tmp_path / "x-train.parquet", tmp_path / "y.parquet")
    source = open_data(tmp_path / "*.parquet")
    assert source.splits == ["test"] * 3 and {file.name for file in source.left_out} == {"x-train.parquet", "y.parquet"}
    (tmp_path / "idx").mkdir()
    file = tmp_path / "idx" / "train-images-idx3-ubyte"
    file.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 24, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(24 * 16))
    (tmp_path / "idx" / "a.png").touch()
    source = open_data(tmp_path / "idx")
    assert source.notes[0] == "1 image beside idx files left out, the first: a.png"
    assert "names images to train on and none to test with" in source.notes[1]
    (tmp_path / "idx" / "t10k-images-idx3-ubyte").symlink_to(file)
    assert set(open_data(tmp_path / "idx").splits) == {"test"}


def test_parquet_files_as_people_have_them(tmp_path):
    folder = tmp_path / "cifar [v1]"
    folder.mkdir()
    cells = {"img": [b"x"] * 2, "fine_label": [3, 4], "subset": ["train", "test"], "text": [b"one", None]}
    parquet.write_table(arrow.table(cells), folder / "a.parquet")
    source = open_data(folder / "a.parquet")
    assert source.splits == ["train", "test"] and source.labels == {"class": ["3", "4"]}
    assert [*source.captions] == [{"en": "one"}, {}]
    parquet.write_table(arrow.table({"image": ["/etc/passwd"], "set": ["1"]}), folder / "a.parquet")
    source = open_data(folder / "a.parquet")
    assert "not taken for a split" in source.notes[0]
    with pytest.raises(SmaltiError, match="the image column holds no bytes"):
        source.read(0)
    with pytest.raises(SmaltiError, match=r"there are parquet files: give '.*/cifar \[v1\]/\*\.parquet', in quotes"):
        open_data(tmp_path)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\nb", "a\0b", "x" * 5000 + ".parquet"])
def test_what_is_no_data_is_one_line(name):
    with pytest.raises(SmaltiError, match="no such f") as caught:
        open_data(name)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()
