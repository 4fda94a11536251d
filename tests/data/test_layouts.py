"""What each file of a folder is taken for: layouts as people have them, and the laws that hold in all."""

import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import smalti
from data.layouts import ANY, HEIC, LAYOUTS, write
from smalti.data import folders, layout
from smalti.data.account import account_of, line_of
from smalti.data.conditions import captions_of
from smalti.data.sources import open_data
from smalti.data.splits import BY_HASH
from smalti.errors import SmaltiError
from smalti.images import folders as walks
from smalti.images.folders import find_images, look_through, sentence, shown
from smalti.images.kinds import KINDS, kind_of_bytes
from smalti.images.reading import read_image


@pytest.mark.parametrize("title", LAYOUTS)
def test_a_layout_is_read_as_people_mean_it(title, tmp_path):
    expected, others = LAYOUTS[title]
    write(tmp_path, dict(sorted(others.items(), key=lambda file: str(file[1]).startswith("-> "))))  # links come last
    write(tmp_path, {name: None for name in expected if not (tmp_path / name).exists()})
    source = open_data(tmp_path)
    assert {source.names[index] for index in source.indices} == set(expected)
    classes, captions = source.labels.get("class"), source.captions
    for index, name in enumerate(source.names):
        split, label, caption = expected[name]
        if split == ANY:
            assert source.reasons[index] in (BY_HASH, "there is nothing else to train on"), name
        elif split == "train" and source.splits[index] == "validation":  # where nothing else is named so
            assert source.reasons[index].endswith(f"and {BY_HASH}") and "validation" not in [
                own[0] for own in expected.values()
            ]
        else:
            assert (source.splits[index], BY_HASH in source.reasons[index]) == (split, False), name
        assert (classes[index] if classes else "") == label, name
        assert (captions[index].get("en") if captions else None) == caption, name
    assert len(LAYOUTS) >= 40


# ------------------------------------------------------------------ the law of the test split

FOLDERS = (
    "train test val Test TESTING x_train test_2 testA train2017 latest contest cat dog images a b test-images train_val"
    " valset dev pre.test .hidden train_test_split"
)
WORDS = st.sampled_from(FOLDERS.split())
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(lambda parts: "/".join(parts) + ".png")


def is_test(name: str) -> bool:
    """Whether a person would say so: independent of the module's rules, by the parts of a path."""
    own = ("test", "testing", "test_2", "testa", "test-images", "pre.test", "tests")
    return any(part.removesuffix(".png").lower() in own for part in name.split("/"))


@settings(max_examples=30, deadline=None)
@given(st.sets(NAMES, min_size=1, max_size=12), st.lists(st.tuples(NAMES, NAMES), max_size=4))
def test_no_image_of_a_folder_or_file_called_test_is_ever_trained_on(names, links):
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for name in sorted(names):
            path = Path(folder) / name
            if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
                write(Path(folder), {name: None})
                made[name] = path
        for link, target in links:  # to files and to folders
            path, to = Path(folder) / link, Path(folder) / target
            to = to if len(target) % 2 else to.parent
            if to.exists() and not path.exists() and not any(parent.is_file() for parent in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(to)
        tests = {found.identity for found in walks.walk(folder, is_test).images if is_test(found.name)}
        try:
            source = open_data(folder)
        except SmaltiError as error:
            assert "no images in this folder" in str(error)
            return
        identities = [source.identity(index) for index in range(len(source.names))]
        assert len(set(identities)) == len(identities)
        for index, split in enumerate(source.splits):
            assert split != "train" or (not is_test(source.names[index]) and identities[index] not in tests)
        found = walks.walk(folder).images
        assert {image.identity for image in found} == set(identities)  # nothing is lost


def test_a_file_in_train_and_validation_is_in_one_of_them(tmp_path):
    write(tmp_path, {"train/cat/a.png": None, "train/dog/b.png": None, "val": "-> train/cat", "train/c.png": None})
    os.link(tmp_path / "train/c.png", tmp_path / "test.png")
    source = open_data(tmp_path)
    assert dict(zip(source.names, source.splits, strict=True)) == {
        "test.png": "test",
        "train/cat/a.png": "train",
        "train/dog/b.png": "train",
    }
    assert any("2 names are of files that count in another split" in note for note in source.notes)


# ------------------------------------------------------------------ the walk


def test_many_links_take_linear_time(tmp_path, monkeypatch):
    """2^18 paths lead to one file, and a thousand names are one folder's."""
    write(tmp_path, {"d18/a.png": None})
    for level in range(18):
        (tmp_path / f"d{level}").mkdir()
        for link in ("x", "test"):
            (tmp_path / f"d{level}" / link).symlink_to(tmp_path / f"d{level + 1}")
    for number in range(300):
        (tmp_path / f"l{number}").symlink_to(tmp_path / "d18")
    listed, looked = [], []
    real, stat = os.scandir, os.stat
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    monkeypatch.setattr(os, "stat", lambda path, **options: looked.append(path) or stat(path, **options))
    assert open_data(tmp_path).splits == ["test"]
    assert len(listed) <= 4 * 20 and len(looked) < 2000


def test_many_names_take_linear_time(tmp_path, monkeypatch):
    """Of 1,000 alike names each is looked up a bounded number of times."""
    count = 1000
    folder = tmp_path / "train"
    folder.mkdir()
    for number in range(count):
        (folder / f"{'a' * 200}{number}.png").touch()
    rows = [f"C:\\data\\train\\{'A' * 200}{number},caption {number}" for number in range(count)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    calls = {"fold": 0, "splits": 0}

    def counted(name, function):
        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr("smalti.data.matching.fold", counted("fold", folders.fold))
    monkeypatch.setattr(folders, "split_of_name", counted("splits", layout.split_of_name))
    source = open_data(tmp_path)
    assert len(source) == count and source.captions[7] == {"en": f"caption {source.names[7].rpartition('a')[2][:-4]}"}
    assert calls["splits"] <= 4 * count and calls["fold"] <= 20 * count


def test_what_cannot_be_opened_is_left_out_and_said(tmp_path, monkeypatch):
    write(tmp_path, {"a.png": None, "shut/b.png": None, "broken.png": "-> nowhere", "loop.png": "-> loop.png"})
    os.mkfifo(tmp_path / "pipe.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = look_through(tmp_path)
    assert [image.name for image in found.images] == ["a.png"] == [path.name for path in find_images(tmp_path)]
    reasons = {file.name: file.more for file in found.left_out}
    assert reasons["shut"] == "Permission denied" and reasons["pipe.png"] == "no regular file"
    assert set(reasons) == {"shut", "broken.png", "loop.png", "pipe.png"}


def test_the_folder_that_is_named_may_be_hidden_and_called_test(tmp_path):
    folder = write(tmp_path / ".cache" / "test" / "__MACOSX", {"a.png": None, "b/c.png": None})
    (tmp_path / "link").symlink_to(folder)
    for name in (folder, tmp_path / "link"):
        assert set(open_data(name, "all").names) == {"a.png", "b/c.png"} and "test" not in open_data(name).splits


def test_odd_names_are_read_split_and_told(tmp_path):
    odd = [b"\xff\xfe.png", b"new\nline.png", b"\x1b[31mred.png", b"a" * 251 + b".png", b"quote'\".png", b" .png"]
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    for name in odd:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as opened:
            opened.write(file.getvalue())
    source = open_data(tmp_path)
    assert {os.fsencode(name) for name in source.names} == set(odd)
    assert len(source.fingerprint) == 64 and all(source.splits)
    told = json.dumps(smalti.info(str(tmp_path)), ensure_ascii=False)
    assert told.isprintable() and line_of(source).isprintable()
    assert shown("a\nb\udcff") == "a\\u000ab\\udcff" and len(shown("x" * 999)) < 70


def test_every_kind_is_told_by_its_head():
    for image_format, name in (("PNG", "PNG"), ("JPEG", "JPEG"), ("GIF", "GIF"), ("WEBP", "WebP"), ("BMP", "BMP"),
                               ("TIFF", "TIFF"), ("PPM", "PNM"), ("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000"),
                               ("QOI", "QOI"), ("ICO", "icon"), ("DDS", "DDS"), ("SGI", "SGI")):  # fmt: skip
        file = io.BytesIO()
        Image.new("RGB", (16, 16), "red").save(file, image_format)
        kind = kind_of_bytes(file.getvalue())
        assert kind and kind.name == name and kind.is_read
    assert kind_of_bytes(HEIC).name == "HEIF" and kind_of_bytes(b"") is None and kind_of_bytes(b"BMW, a car") is None


def test_no_suffix_is_in_the_table_twice_and_all_of_pillows_are_decided():
    suffixes = [suffix for kind in KINDS for suffix in kind.suffixes.split()]
    assert len(suffixes) == len(set(suffixes))
    Image.init()
    pillow = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    rare = (
        ".blp .bufr .bw .cur .dcx .fit .fits .flc .fli .ftc .ftu .gbr .grib .h5 .hdf .iim .im .mpeg .mpg .msp .pcd .pxr"
        " .ras .rgb .rgba .xbm .xpm"
    )  # games', films', measurements: not what people mean by an image
    assert pillow - set(suffixes) <= set(rare.split())


def test_what_is_left_out_is_one_sentence_with_the_remedy(tmp_path):
    write(tmp_path, {"a.png": None, "b.txt": "x", **{f"{n}.heic": HEIC for n in range(9)}, "c.jxl": None, "d": "text"})
    told = sentence(look_through(tmp_path).left_out)
    assert told == (
        "left out 12 files that are no images that smalti reads (.heic 9, .txt 1, .jxl 1, without a suffix 1); "
        ".heic: pip install 'smalti[heif]'; .jxl: convert them, as to PNG"
    )
    source = open_data(tmp_path)
    counts = account_of_rows(source, "left out")
    assert told in line_of(source) and counts["an image that smalti does not read (.heic)"] == 9
    with pytest.raises(SmaltiError, match=r"no images in this folder; left out 1 file that is no image.*\(.heic 1\)"):
        open_data(write(tmp_path / "phone", {"1.heic": HEIC}))
    with pytest.raises(SmaltiError, match="HEIF, which smalti does not read; pip install 'smalti\\[heif\\]'"):
        read_image(tmp_path / "0.heic")


def account_of_rows(source, what: str) -> dict[str, int]:
    """The counts of one table of the account."""
    Image.new("RGB", (8, 8)).save(Path(source.name, source.names[0]))
    tables = account_of(source)
    rows = next(rows for rows in tables.values() if isinstance(rows, list) and rows and what in rows[0])
    return {row[what]: next(value for value in row.values() if isinstance(value, int)) for row in rows}


def test_data_that_ask_for_bands_or_a_range_are_described(tmp_path):
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.full((8, 8, 2), index - 1.0))
    account = account_of(open_data(tmp_path))
    assert account["num_images"] == len(account["bad_images"]) == 3 and not account["sizes"]
    assert "--value_range" in account["bad_images"][0]


def test_remarks_on_a_data_set_are_one_warning(tmp_path):
    for index in range(3):
        Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(tmp_path / f"{index}.png")
    with pytest.warns(UserWarning, match="3 images keep few of their levels") as said:
        account_of(open_data(tmp_path))
    assert len(said) == 1


def test_heif_is_read_where_pillow_heif_is_installed(tmp_path, monkeypatch):
    write(tmp_path, {"a.heic": HEIC, "b.png": None})
    monkeypatch.setattr("smalti.images.kinds.register_heif", lambda: True)
    assert [path.name for path in find_images(tmp_path)] == ["a.heic", "b.png"]


# ------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (["latest/a.png", "b.png"], "the folder latest is not taken for a split"),
        (["pen/a.png", "test/b.png"], "test is a split beside pen: rename it if a class is meant"),
        (["train/a.png"], "the data names images to train on and none to test with"),
        (["test/a.png", "pen/b.png"], "names images for test and none to train on: the other 1 are divided by a hash"),
        (["car/red/a.png", "fruit/red/b.png"], "car/red, fruit/red are 2 classes, not one"),
        (["train/train/a.png", "train/bus/a.png"], "the folder train/train is taken for a class"),
        (["train/test/a.png"], "train/test names several splits and is taken for test"),
    ],
)
def test_what_may_be_meant_otherwise_is_said(files, note, tmp_path):
    source = open_data(write(tmp_path, dict.fromkeys(files)))
    assert any(note in own for own in source.notes), source.notes
    assert "note: " in line_of(source)


def test_a_plain_data_set_has_no_notes(image_folder, tmp_path):
    assert not open_data(image_folder).notes and not open_data("emoji").notes
    files = [f"images/{split}/{name}.png" for split in ("train", "val", "test") for name in "ab"]
    assert not open_data(write(tmp_path, dict.fromkeys(files))).notes


def test_the_account_counts_every_image_once(tmp_path):
    names = [f"{split}/c{number % 40}/{number}.png" for split in ("train", "test") for number in range(80)]
    source = open_data(write(tmp_path, dict.fromkeys(names)))
    for what in ("split", "class"):
        assert sum(account_of_rows(source, what).values()) == 160


# ------------------------------------------------------------------ one image, idx, parquet


@pytest.mark.parametrize("name", ["a.png", "b.png", "35.png", "7.png", "x.jpg"])  # some would be held out by their hash
def test_a_single_image_is_trained_on(name, tmp_path):
    source = open_data(write(tmp_path, {name: None}), "train")
    assert len(source) == 1
    with pytest.raises(SmaltiError, match=r"no images in the validation split \(train 1, validation 0, test 0\)"):
        open_data(tmp_path, "validation")


def test_idx_and_parquet_files_are_told_by_whole_words(tmp_path):
    file = bytes([0, 0, 8, 3, 0, 0, 0, 24, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(24 * 16)
    for name in ("emnist-letters-train", "emnist-letters-test"):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(file)
    (tmp_path / "._emnist-letters-train-images-idx3-ubyte").write_bytes(b"macOS")
    (tmp_path / "emnist-letters-train-images-idx3-ubyte.gz").write_bytes(b"not read")
    source = open_data(tmp_path)
    assert [source.splits.count(split) for split in ("train", "validation", "test")] == [22, 2, 24]
    assert len(set(source.names)) == 48
    for name, split in (("contest", None), ("latest", None), ("test-00000-of-00001", "test"), ("x_test", "test"),
                        ("data-train", "train"), ("restrained", None), ("valid", "validation")):  # fmt: skip
        assert layout.split_of_name(f"{name}.parquet").split == split
    for split in ("train", "test"):
        (tmp_path / "hub" / split).mkdir(parents=True)
        parquet.write_table(arrow.table({"image": [b""] * 3, "text": ["a", None, "None"]}),
                            tmp_path / "hub" / split / "0000.parquet")  # fmt: skip
    source = open_data(str(tmp_path / "hub" / "*" / "*.parquet"))
    assert source.splits.count("test") == 3 and len(set(source.names)) == 6
    assert [*source.captions][:3] == [{"en": "a"}, {}, {}]


def test_captions_of_several_lines_are_all_used(tmp_path):
    write(tmp_path, {"a.png": None, "a.txt": "one\ntwo\n", "b.png": None})
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.png", "text": ["x", "y", "z", "x"]}')
    assert captions_of(open_data(tmp_path), ["en"]) == [["one", "two"], ["x", "y", "z"]]
