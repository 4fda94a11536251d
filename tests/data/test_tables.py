"""Tables of captions as spreadsheets, programs and people write them."""

import json

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from smalti.data.sources import open_data
from smalti.errors import SmaltiError

FILES = ("a.png", "b.png", "c.png")
PLAIN = "file_name,text\na.png,one\nb.png,two\nc.png,three\n"
GOOD = ["one", "two", "three"]
PAIRS = [("a.png", "one"), ("b.png", "two"), ("c.png", "three")]


def read(tmp_path, content, name="metadata.csv", files=FILES):
    """The captions of a folder with a table, and what is said of it."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_data(tmp_path)
    captions = source.captions or [{}] * len(source)
    return [row.get("en") for row in captions], [note for note in source.notes if "metadata" in note]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\n\n"),
        PLAIN.replace(",", ", "),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace("\n", ",,,\n"),
        PLAIN.replace("file_name,text", '"File Name","Text"'),
        PLAIN.replace("file_name,text", " filename , Caption "),
        PLAIN.replace("file_name,text", "image,prompt"),
        PLAIN.replace("file_name,text", "Image-Path,DESCRIPTION"),
        PLAIN.replace("a.png", "./a.png").replace("b.png", ".\\b.png"),
        PLAIN.replace("a.png", "A.PNG"),
        PLAIN.replace(".png", ""),
        PLAIN.replace("a.png", "/home/me/photos/a.png").replace("b.png", "C:\\photos\\b.png"),
        PLAIN.replace("one", '"one"'),
        PLAIN + "\n",
        PLAIN + "missing.png,none\n",
        "id,file_name,x,text\n1,a.png,,one\n2,b.png,,two\n3,c.png,,three\n",
        'file_name,text,caption\na.png,one,x\nb.png,two,"y, z"\nc.png,three,\n',
    ],
)
def test_every_spelling_of_a_table_gives_the_same_captions(tmp_path, content):
    assert read(tmp_path, content)[0] == GOOD


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", "\n".join(json.dumps({"file_name": a, "text": b}) for a, b in PAIRS)),
        ("metadata.json", json.dumps([{"image": {"path": a}, "caption": b} for a, b in PAIRS])),
        ("metadata.json", json.dumps(dict(PAIRS))),
        ("metadata.json", json.dumps({"images": [{"filename": a, "text": b} for a, b in PAIRS]})),
        ("metadata.json", json.dumps({"file_name": list(FILES), "text": GOOD})),
        ("metadata.jsonl", json.dumps({a: {"prompt": b} for a, b in PAIRS})),
        ("METADATA.JSONL", '[{"file_name": "a.png", "text": "one"}, {"file_name": "b", "text": ["two"]}, '
         '{"file_name": "c.png", "text": {"en": "three", "de": "drei"}}]'),
        ("metadata.tsv", PLAIN.replace(",", "\t")),
    ],
)  # fmt: skip
def test_every_kind_of_table_gives_the_same_captions(tmp_path, name, content):
    assert read(tmp_path, content, name)[0] == GOOD


def test_a_parquet_table_gives_the_same_captions(tmp_path):
    parquet.write_table(arrow.table({"file_name": FILES, "text": [["one"], ["two", None], ["three"]]}),
                        tmp_path / "metadata.parquet")  # fmt: skip
    assert read(tmp_path, PLAIN, "unread.csv")[0] == GOOD


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("metadata.csv", "file_name,text\na.png\nb.png,two\nc.png,\n", None),
        ("metadata.csv", "file_name,text\na.png,None\nb.png,two\nc.png,NaN\n", None),
        ("metadata.csv", "file_name,text\na.png,red, round\nb.png,two\n", "1 row with more cells than the first line"),
        (
            "metadata.csv",
            "file_name,text\nx/a.png,one\nb.png,two\n",
            "1 of 2 rows match no image, the first: row 1, x/a",
        ),
        ("metadata.csv", "file_name,text\n,one\nb.png,two\n", "1 of 2 rows match no image, the first: row 1, no name"),
        ("metadata.jsonl", '{"file_name":"a.png","text":null}\n{"file_name":"b.png","text":"two"}', None),
        ("metadata.jsonl", '{"file_name":"a.png","text":NaN}\n{"file_name":"b.png","text":"two"}', None),
        ("metadata.jsonl", '{"file_name":"a.png","text":{"x":1}}\n{"file_name":"b.png","text":"two"}', None),
        ("metadata.jsonl", '{"file_name":["a.png"],"text":"x"}\n{"file_name":"b.png","text":"two"}', "row 1, no name"),
    ],
)
def test_what_is_no_caption_is_none(tmp_path, name, content, note):
    captions, notes = read(tmp_path, content, name)
    assert captions == [None, "two", None] and (any(note in own for own in notes) if note else not notes), notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,text\na.png,\"one\nb.png,two\n", "row 1: unexpected end of data; put what has"),
        ("metadata.csv", 'file_name,text\na.png,one\nb.png,"tw"o\n', "row 2: .*put what has commas, quotes"),
        ("metadata.csv", "file_name,text,split\na.png,x,train\nb.png,a, b,test\n", "row 2 has more cells"),
        ("metadata.csv", b"file_name,text\na.png,one\nb.png,\xe4rgerlich\n", "line 3 is not UTF-8; save it as UTF-8"),
        ("metadata.csv", "file_name,text\na.png,o\0ne\n", "line 2 holds a zero byte"),
        ("metadata.csv", "name,text\na.png,one\n", "its columns are name, text; it needs the columns"),
        ("metadata.csv", "a.png,one\nb.png,two\n", "its columns are a.png, one"),
        ("metadata.csv", "file_name,split\na.png,tset\n", "row 1, a.png: the split 'tset' is none of"),
        ("metadata.jsonl", '{"file_name":"a.png"}\n{"file_na', "row 2: Unterminated string"),
        ("metadata.jsonl", '{"file_name":"a.png","text":"one"}\n7\n', "row 2 is no object"),
        ("metadata.json", "7", "neither a list nor an object"),
        ("metadata.json", "[" * 100_000, "row 1: nested too deeply"),
        ("metadata.json", '{"file_name": ["a.png"], "text": []}', "different lengths"),
        ("metadata.parquet", "PAR1 nonsense", "metadata.parquet: cut off or not parquet"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_error_with_file_and_row(tmp_path, name, content, message):
    with pytest.raises(SmaltiError, match=message) as caught:
        read(tmp_path, content, name)
    assert name in str(caught.value) and len(str(caught.value)) < 300 and str(caught.value).isprintable()


def test_accents_composed_otherwise_are_the_same_name(tmp_path):
    assert read(tmp_path, "file_name,text\nCaf\u00e9.png,one\n", files=("Cafe\u0301.png", "b.png"))[0] == ["one", None]


def test_a_name_that_fits_several_images_fits_none(tmp_path):
    files = ("cat/1.png", "dog/1.png", "dog/2.png")
    captions, notes = read(tmp_path, "file_name,text\n1.png,one\n2,two\nbird/1.png,three\n", files=files)
    assert captions == [None, None, "two"] and "2 of 3 rows match no image" in notes[0]


def test_absolute_paths_leave_out_the_same_folders_in_every_row(tmp_path):
    """Of /old/dog/1.png no image may be 1.png at the top, where other rows show what is left out."""
    files = ("1.png", "cat/1.png", "cat/2.png")
    rows = "/old/cat/1.png,one\n/old/cat/2.png,two\n/old/dog/1.png,wrong\n/old/1.png,top\n"
    assert read(tmp_path, "file_name,text\n" + rows, files=files)[0] == ["top", "one", "two"]


def test_several_captions_of_an_image_are_kept_each_once(tmp_path):
    content = "image,caption\na.png,one\na.png,two\na.png,one\nb.png,\"['x', 'y']\"\n"
    read(tmp_path, content)
    assert [*open_data(tmp_path).captions] == [{"en": "one", "en-2": "two"}, {"en": "x", "en-2": "y"}, {}]


def test_a_column_that_may_be_a_split_is_one_where_its_words_are(tmp_path):
    read(tmp_path, "file_name,set\na.png,test\nb.png,train\nc.png,val\n")
    assert open_data(tmp_path).splits == ["test", "train", "validation"]
    notes = read(tmp_path, "file_name,set,text\na.png,1,x\nb.png,2,y\nc.png,3,z\n")[1]
    assert any("not taken for a split" in note for note in notes)
    assert "test" not in open_data(tmp_path).splits


def test_rows_that_disagree_are_test_images_and_said(tmp_path):
    read(tmp_path, "file_name,split\na.png,train\nb.png,train\nA.png,test\nc.png,train\n")
    source = open_data(tmp_path)
    assert source.splits[0] == "test" and any("1 images have several splits" in note for note in source.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", PLAIN.replace("a.png", "https://x.org/i/a.png?width=9&height=9").replace("b.png", "b%2Epng")),
        ("metadata.csv", PLAIN.replace("a.png", "{folder}/a.png").replace("b.png", "{parent}/{folder}/b.png")),
        ("metadata.csv", PLAIN.replace("file_name,text", "image_id,alt_text")),
        ("metadata.json", json.dumps({"file_name": dict(enumerate(FILES)), "text": dict(enumerate(GOOD))})),
        ("metadata.json", json.dumps({"columns": ["text", "file_name"], "data": [[b, a] for a, b in PAIRS]})),
    ],
)
def test_addresses_folders_and_records_of_programs_are_understood(tmp_path, name, content):
    content = content.replace("{folder}", tmp_path.name).replace("{parent}", tmp_path.parent.name)
    assert read(tmp_path, content, name)[0] == GOOD


def test_a_name_with_a_question_mark_is_a_name(tmp_path):
    content = "file_name,text\nhttps://x.org/a.png?w=1,one\n"
    assert read(tmp_path, content, files=("a.png",))[0] == ["one"]
    (tmp_path / "a.png?w=1").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert read(tmp_path, content, files=("a.png",))[0] == [None, "one"]


def test_texts_of_parquet_may_be_bytes(tmp_path):
    columns = {"file_name": [name.encode() for name in FILES], "text": [text.encode() for text in GOOD]}
    parquet.write_table(arrow.table(columns), tmp_path / "metadata.parquet")
    assert read(tmp_path, PLAIN, "unread.csv")[0] == GOOD


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("metadata.csv", "file_name,text\n", "metadata.csv says nothing: it has no rows"),
        ("metadata.csv", "", "metadata.csv says nothing: it has no rows"),
        ("metadata.csv", "file_name,label\na.png,cat\na.png,dog\n", "1 image of several classes in tables, the first"),
        ("captions.csv", PLAIN, "captions.csv is not read: captions, classes and splits are in metadata.csv"),
        (
            "metadata.csv",
            "file_name,split\ntest.png,train\n",
            "1 image called test of which a column says otherwise stay",
        ),
    ],
)
def test_what_a_table_loses_is_said(tmp_path, name, content, note):
    read(tmp_path, content, name, (*FILES, "test.png"))
    assert any(own.startswith(note) for own in open_data(tmp_path).notes)
