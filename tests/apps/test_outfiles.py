"""Where verbs write: nothing is overwritten unasked, and a stranger's names do no harm on a disk or a terminal."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smalti.apps.cli import main
from smalti.apps.outfiles import LONGEST_BYTES, Names, clean_stem, new_file, new_files
from smalti.apps.output import printable
from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.pretrained import find_folder
from smalti.recipes import vqvae

from ..conftest import draw_image

WRITERS = {  # how each verb is called, and a file that it would write
    "encode {model} {image} --out codes.npz": "codes.npz",
    "decode {model} given.npz --out pictures": "pictures/photo.png",
    "reconstruct {model} {image} --out pictures": "pictures/photo.png",
    "sample {model} --num 2 --out sample.png": "sample.png",
    "sample {model} --num 2 --out other.png": "other.npz",
    "interpolate {model} {image} {image} --out path.png": "path.png",
    "compress {model} {image} --out photo.smalti": "photo.smalti",
    "decompress given.smalti --model {model} --out pictures": "pictures/0.png",
    "report {model} --images 0 --out report": "report/report.csv",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a photograph, its codes and its compressed file."""
    place = tmp_path_factory.mktemp("outfiles")
    Autoencoder(vqvae(image_size=16, width=8, codebook_size=16, start="random").model).save_pretrained(place / "model")
    Image.fromarray(draw_image(0, (16, 16))).save(place / "photo.png")
    model, image = str(place / "model"), str(place / "photo.png")
    assert main(["encode", model, image, "--out", str(place / "given.npz")]) == 0
    assert main(["compress", model, image, "--out", str(place / "given.smalti")]) == 0
    assert main(["evaluate", model, "--data", "emoji", "--split", "validation"]) == 0
    return place


@pytest.mark.parametrize("line", WRITERS)
def test_no_verb_overwrites_unless_it_is_told_to(line, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("given.npz", "given.smalti"):
        os.link(place / name, tmp_path / name)
    argv = line.format(model=place / "model", image=place / "photo.png").split()
    assert main(argv) == 0
    precious = tmp_path / WRITERS[line]
    precious.write_bytes(b"precious")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(argv) == 1
    assert "exists; --force overwrites it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert main([*argv, "--force"]) == 0
    assert precious.read_bytes() != b"precious"


@pytest.mark.parametrize("line", ["sample {model} --out a.npz", "interpolate {model} {image} {image} --out a.gif"])
def test_a_picture_ends_in_png(line, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.format(model=place / "model", image=place / "photo.png").split()) == 1
    assert "--out must end in .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("photo.jpg", "photo"),
        ("../../evil.png", "evil"),
        ("..\\..\\evil.png", "evil"),
        ("/etc/passwd", "passwd"),
        ("a/b.tar.gz", "b.tar"),
        ("", "image"),
        (".", "image"),
        ("..", "image"),
        ("a\0b\nc\x1b]0;d.png", "a_b_c_]0;d"),
        ("\udcff.png", "_"),
        ("\u202egnp.exe", "_gnp"),
        ("ü" * 300, "ü" * (LONGEST_BYTES // 2)),
    ],
)
def test_names_out_of_files_are_cleaned(name, stem):
    assert clean_stem(name) == stem


@given(st.lists(st.text(alphabet="aAÀà./\\-2\0", max_size=4), max_size=12))
def test_names_lead_nowhere_else_and_to_a_file_each(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    targets = new_files(folder, names, ".png", force=False)
    for target in targets:
        assert target.parent == folder and target.suffix == ".png"
        target.write_bytes(b"")
    assert len(list(folder.iterdir())) == len({str(target).casefold() for target in targets}) == len(names)


def test_many_equal_names_are_no_quadratic_work():
    names = Names()
    looks = 0

    class Counted(set):
        def __contains__(self, name):
            nonlocal looks
            looks += 1
            return super().__contains__(name)

    names._taken = Counted()
    assert len({names.new("a.png") for _ in range(5000)}) == 5000
    assert looks < 3 * 5000


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    with pytest.raises(SmaltiError, match="is a folder; --out is a file here"):
        new_file(tmp_path, True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SmaltiError, match="is a file; --out is a folder here"):
        new_files(tmp_path / "file", ["a"], ".png", True)


def test_a_terminal_gets_nothing_to_obey(place, tmp_path, capsys):
    name = "a\x1b]0;owned\x07\nb\x9b2J\u202e.png"
    (tmp_path / name).write_bytes((place / "photo.png").read_bytes())
    for more in ([], ["--json"]):
        out = tmp_path / f"out{len(more)}"
        assert main(["reconstruct", str(place / "model"), str(tmp_path / name), "--out", str(out), *more]) == 0
        said = capsys.readouterr()
        assert not set("\x1b\x07\x9b\u202e") & set(said.out + said.err)
    assert json.loads(said.out)["images"][0]["image"] == str(tmp_path / name)
    assert main(["encode", str(place / "model"), str(tmp_path / "none\x1b.png"), "--out", "x.npz"]) == 1
    assert "none\\u001b.png: no such file" in capsys.readouterr().err


def test_text_for_people_stays_as_it_is():
    text = "réd héart ❤️ 👩\u200d👩\u200d👧 日本\nnext"
    assert printable(text) == text


def test_a_mistyped_run_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asked the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    with pytest.raises(SmaltiError, match=r"runs/demoo: no such folder; did you mean runs/demo\?"):
        find_folder("runs/demoo")
    for name in ("demo", "a/b/c", "./x", "/x/y", "..", "own er/name", "a/", "/a", "own\x1ber/name", ""):
        if name not in ("..", ""):
            with pytest.raises(SmaltiError, match="no such folder"):
                find_folder(name)
    with pytest.raises(SmaltiError, match="the hub says: asked the hub"):
        find_folder("owner/name")
