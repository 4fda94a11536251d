"""A user's own parts, in a file of theirs: docs/extending.md as it stands, and what it promises."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import draw_image
from smalti.apps.cli import main
from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import BOTTLENECKS
from smalti.models.likelihoods import LIKELIHOODS
from smalti.models.networks import NETWORKS
from smalti.priors.family import PRIORS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILE, IN_PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.search(r"```sh\n(.*?)\n```", PAGE, flags=re.DOTALL)[1].splitlines()
QUICK = "--steps 4 --checkpoint_every 2 --batch_size 4"
SMALL = {"train mine": f"--image_size 16 {QUICK}", "train pix": f"--channels 8 --layers 1 {QUICK}", "sample": "--num 2",
         "compare": "--image_size 16 --width 8 --steps 2 --batch_size 4 --codebook_size 16 "
                    "--priors mine:bigram.py:bigram --prior_steps 2"}  # fmt: skip

OWN_PRIOR = '''
from torch import nn
from smalti.priors.family import PRIORS, CausalPrior
from smalti.priors.layers import previous
from smalti.recipes.flat import recipe
from smalti.recipes.priors import Codes


class Bigram(CausalPrior):
    """Each code given the one before it."""

    def __init__(self, *, codebook_size, grid):
        super().__init__(codebook_size, grid)
        self.table, self.first = nn.Embedding(codebook_size, codebook_size), nn.Embedding(1, codebook_size)

    def _network(self, codes, condition):
        return previous(self.table(codes.flatten(1)), self.first.weight.expand(len(codes), -1))


PRIORS["bigram"] = Bigram


@recipe()
def bigram(codes: Codes):
    """A bigram.

    Args:
        codes: what is modelled.
    """
    return codes.experiment({"kind": "bigram"})
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a user works: mine.py and a picture; nothing else of the page has been made yet."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "mine.py").write_text(FILE)
    (folder / "bigram.py").write_text(OWN_PRIOR)
    Image.fromarray(draw_image(0, (24, 40))).save(folder / "photo.png")
    return folder


@pytest.fixture
def smalti(place, image_folder, monkeypatch, capsys):
    """Runs a command line as a new process would: of the families' members it knows only smalti's own."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("SMALTI_CACHE", str(place / "cache"))
    families = [(family, dict(family)) for family in (BOTTLENECKS, NETWORKS, LIKELIHOODS, PRIORS)]

    def forget():
        for family, members in families:
            family.data = dict(members)
        for name in ("mine", "bigram"):
            sys.modules.pop(name, None)

    def run(line: str) -> tuple[int, str]:
        forget()
        more = next((options for begin, options in SMALL.items() if line.startswith(f"smalti {begin}")), "")
        argv = shlex.split(f"{line} {more}".replace("--data emoji", f"--data {image_folder}"))
        status = main(argv[1:])
        return status, capsys.readouterr().err

    yield run
    forget()


@pytest.fixture
def trained(smalti, place):
    """The run of the page's first command."""
    assert smalti(COMMANDS[0])[0] == 0
    return place / "runs" / "mine"


def test_every_command_of_the_page_runs(smalti, place):
    for line in COMMANDS:
        status, said = smalti(line)
        assert status == 0, f"{line}: {said}"
    config = json.loads((place / "runs" / "mine" / "config.json").read_text())
    assert [config[part]["kind"] for part in ("networks", "bottleneck", "likelihood")] == [
        "patches",
        "random_codebook",
        "logistic",
    ]
    assert "The module `mine` by its author" in (place / "runs" / "mine" / "README.md").read_text()
    compared = json.loads((place / "comparison" / "comparison.json").read_text())
    assert {name: system["bits_per_image"] for name, system in compared["systems"].items()} == {
        "vqvae": 4 * 4 * 4,
        "mine": 4 * 4 * 4,
    }
    page = (place / "comparison" / "report.html").read_text()
    assert "copied past the nearest vector" in page and "their networks or likelihoods differ" in page
    assert [prior["name"] for prior in compared["priors"]] == ["mine + bigram"]
    (mine,) = (row for row in compared["table"] if row["system"] == "mine")
    assert mine["gradient_stop"]["claim"] and mine["gradient_stop"]["measured"].endswith(": 0")


def test_without_its_file_a_model_is_an_error_that_says_what_to_do(smalti, trained):
    for line in COMMANDS[1:]:
        if "runs/mine" in line:
            line = line.replace("--code mine.py", "").replace("--out ", "--out never/")
            status, said = smalti(line)
            assert status == 1 and said.count("\n") == 1
            assert "networks: unknown kind 'patches'; known: mlp, residual, strided" in said and "--code FILE" in said
    assert smalti("smalti info runs/mine --code none.py") == (1, "smalti: none.py: no such Python file\n")


def test_it_goes_on_where_it_stopped(smalti, trained):
    whole = (trained / "model.safetensors").read_bytes()
    (trained / "checkpoints" / "step-000000004.safetensors").unlink()
    assert smalti(COMMANDS[0])[0] == 0
    assert (trained / "model.safetensors").read_bytes() == whole


def test_in_python_an_import_is_enough(smalti, trained, place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    smalti("smalti --version")  # forgets
    names: dict = {}
    exec(IN_PYTHON, names)
    assert type(names["model"].bottleneck) is names["mine"].RandomCodebook


def test_a_new_process_needs_nothing_but_the_option(trained, place):
    command = [sys.executable, "-m", "smalti", "info", "runs/mine", "--code", "mine.py", "--json"]
    found = subprocess.run(command, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert json.loads(found.stdout)["likelihood"] == {"kind": "logistic"}


def test_a_model_makes_nothing_run_that_was_not_named(smalti, trained, place):
    """Neither a file beside it nor anything that its config says."""
    config = trained / "config.json"
    before = config.read_text()
    trap = f"open({str(place / 'trapped')!r}, 'w')"
    for path in (trained / "mine.py", trained / "patches.py", place / "patches.py"):
        path.write_text(trap)
    smalti("smalti --version")  # forgets
    for kind in ("patches", "mine.py:Patches", "mine.Patches", "../mine.py"):
        config.write_text(before.replace('"patches"', json.dumps(kind)))
        with pytest.raises(SmaltiError, match="unknown kind"):
            Autoencoder.from_pretrained(trained)
    config.write_text(before.replace('"networks"', '"code": "mine.py", "networks"'))
    with pytest.raises(SmaltiError, match="unknown key 'code'"):
        Autoencoder.from_pretrained(trained)
    config.write_text(before)
    assert not (place / "trapped").exists()


def test_a_prior_of_a_users_own(smalti, trained):
    both = "--code mine.py --code bigram.py"
    train = f"smalti train bigram.py:bigram --tokenizer runs/mine --data emoji --out runs/bigram --code mine.py {QUICK}"
    for line in (train, f"smalti evaluate runs/bigram --data emoji {both}", f"smalti sample runs/bigram {both}",
                 f"smalti compress runs/bigram photo.png --out bigram.smalti {both}",
                 "smalti decompress bigram.smalti --out bigram.png --code mine.py,bigram.py"):  # fmt: skip
        status, said = smalti(line)
        assert status == 0, f"{line}: {said}"
    status, said = smalti("smalti sample runs/bigram --out other.png --code mine.py")
    assert status == 1 and "prior: unknown kind 'bigram'" in said


def test_the_laws_of_ours_apply_to_it(place):
    laws = ["tests/laws/test_bottlenecks.py", "tests/laws/test_likelihoods.py"]
    names = "random_codebook or logistic and not mixture"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", names, *laws]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SMALTI_CODE": str(place / "mine.py")}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0 and int(re.search(r"(\d+) passed", found.stdout)[1]) > 25, found.stdout
