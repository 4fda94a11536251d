"""What is published says the same everywhere; `make release` checks the files themselves."""

import re
import tomllib
from pathlib import Path

import smalti
from tools.release import long_description

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGETS = re.compile(r"\]\(([^)]*)\)")


def test_there_is_one_version():
    (cited,) = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert smalti.__version__ == PROJECT["version"] == cited


def test_every_licence_file_is_there():
    assert [name for name in PROJECT["license-files"] if not (ROOT / name).is_file()] == []


def test_an_index_is_given_no_link_of_ours():
    text = long_description(README, None)
    assert not [target for target in TARGETS.findall(text) if not target.startswith("https://")]
    assert "![" not in text and "pip install 'smalti[" in text and "pip install -e" not in text
    assert all(heading in text for heading in re.findall("^## .*$", README, re.MULTILINE))
    assert "*Emoji of concepts" in README and "*Emoji of concepts" not in text  # what stood below a picture


def test_with_an_address_every_link_leads_there():
    text = long_description(README, "https://example.org/o/smalti/blob/v1")
    ours = [target for target in TARGETS.findall(README) if not target.startswith("https:")]
    found = [target for target in TARGETS.findall(text) if target.startswith("https://example.org/")]
    assert len(found) == len(ours) > 20
    assert "![" in text and "(https://example.org/o/smalti/raw/v1/docs/pictures/reconstructions.png)" in text
    assert "[VAE](https://example.org/o/smalti/blob/v1/docs/vae.md)" in text
