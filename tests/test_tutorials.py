"""The tutorials, from the first block to the last: every command and every line of Python, with fewer steps."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from conftest import draw_image
from smalti.apps.cli import main

PAGES = sorted((Path(__file__).parent.parent / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICK = "--steps 2 --batch_size 4"
SMALL = {  # what is put behind a command: its result is as small as it can be
    "train vqvae": f"{QUICK} --image_size 16 --width 8 --codebook_size 16",
    "train pixelsnail": f"{QUICK} --channels 8 --blocks 1",
    "train pixelcnn": f"{QUICK} --channels 8 --layers 1",
    "sample runs/prior --num": "--num 2",
    "evaluate": "",
}
LONG = {"--minutes 60": "", "--image_size 128": "", "steps = 400": "steps = 20"}


def shortened(text: str) -> str:
    for long, short in LONG.items():
        text = text.replace(long, short)
    return text


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the photographs and the picture that the pages name."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(["first", "test_1", "test_2", *(f"other{number}" for number in range(9))]):
        Image.fromarray(draw_image(number, (24, 40))).save(tmp_path / "photos" / f"{name}.png")
    Image.fromarray(draw_image(3, (32, 32))).save(tmp_path / "emoji.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_works_as_it_is_written(page, desk, capsys):
    names: dict = {}
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    for language, block in blocks:
        if language == "python":
            exec(compile(shortened(block), str(page), "exec"), names)
            continue
        for line in shortened(block).splitlines():
            words = shlex.split(line, comments=True)
            extra = next((more for start, more in SMALL.items() if " ".join(words[1:]).startswith(start)), "")
            assert words[0] == "smalti" and main([*words[1:], *extra.split()]) == 0, (line, capsys.readouterr().err)
    assert len(blocks) > 3
