"""The experiments can be run again: every arm, every script, every command that a page states."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from smalti.apps import cli
from smalti.recipes import dvae, transformer
from smalti.training.experiment import Experiment
from smalti.training.loop import train

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))

import damages
import emoji_dvae
import same_codes
import text_to_image

ROOT = Path(__file__).parent.parent
SMALL, QUICK = {"width": 8, "codebook_size": 16}, {"steps": 1, "batch_size": 2}


@pytest.mark.parametrize("name", emoji_dvae.ARMS)
def test_every_arm_of_the_ablation_trains(name, image_folder, tmp_path):
    arm = emoji_dvae.ARMS[name]
    assert isinstance(arm(data="emoji"), Experiment)
    experiment = arm(data=str(image_folder), image_size=16, **SMALL).with_settings(**QUICK)
    assert train(experiment, tmp_path / "run", progress=False).exists()


def test_the_arms_differ_from_the_recipe():
    models = [(arm(data="emoji").model, arm(data="emoji").loss) for arm in emoji_dvae.ARMS.values()]
    assert all(models[first] != models[second] for first in range(len(models)) for second in range(first))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train(
        dvae(data="emoji", **SMALL).with_settings(**QUICK),
        tmp_path_factory.mktemp("experiments") / "dvae",
        progress=False,
    )


def run(module, monkeypatch, *arguments) -> None:
    """A script's main, which may choose its threads: other tests keep theirs."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)


def test_damages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(damages, "DAMAGES", {name: damages.DAMAGES[name] for name in ("blur, px", "8x8 blocks")})
    run(damages, monkeypatch, "emoji", "--image_size", 32, "--num", 4, "--out", tmp_path / "damages.png")
    found = json.loads((tmp_path / "damages.json").read_text())
    assert found["num_images"] == 4 and set(found["curves"]) == set(damages.DAMAGES)
    assert (tmp_path / "damages.png").exists() and "damage that raises it most" in capsys.readouterr().out


def test_same_codes(tokenizer, monkeypatch, capsys):
    run(same_codes, monkeypatch, tokenizer, "--split", "validation")
    assert re.findall(r": (\d+)$", capsys.readouterr().out, flags=re.MULTILINE) == ["0"] * 4


def test_text_to_image(tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(text_to_image, "NUM_TRAIN", 2)
    monkeypatch.setattr(text_to_image, "SETTINGS", text_to_image.SETTINGS[:2])
    images_of = text_to_image.images_of
    monkeypatch.setattr(text_to_image, "images_of", lambda *names: [part[:32] for part in images_of(*names)])
    small = {"width": 8, "layers": 1, "heads": 2, "text_vocabulary": 300, "text_length": 99}
    experiment = transformer(tokenizer=str(tokenizer), data="emoji", text="en", **small).with_settings(**QUICK)
    prior = train(experiment, tmp_path / "t2i", progress=False)
    run(text_to_image, monkeypatch, prior, "--steps", 1, "--classifier", tmp_path / "classifier", "--out", tmp_path)
    assert (tmp_path / "agreement.json").exists() and capsys.readouterr().out.count("samples, ") == 2 * 4


# ------------------------------------------------------------------ commands


def commands(page: Path) -> list[str]:
    """The `smalti` commands of a page's indented blocks, with its shell variables put in."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    variables = dict(match.groups() for line in lines if (match := re.match(r'(\w+)="(.*)"$', line)))
    lines = [re.sub(r"\$(\w+)", lambda match: variables.get(match[1], match[0]), line) for line in lines]
    return [part.strip() for line in lines for part in line.split(";") if part.strip().startswith("smalti ")]


PAGES = sorted([*(ROOT / "experiments").glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("line", dict.fromkeys(line for page in PAGES for line in commands(page)))
def test_every_command_of_the_pages_is_understood(line, monkeypatch):
    argv, built = shlex.split(line, comments=True)[1:], []
    if argv[0].startswith("--"):  # no verb: it is done, and the program ends
        with pytest.raises(SystemExit) as ended:
            cli._parse(argv[: argv.index(">")])
        assert ended.value.code == 0
        return
    name, function, arguments, _ = cli._parse(argv)
    assert name == argv[0]
    if name == "train" and "--tokenizer" not in argv:  # a prior's recipe looks at its tokenizer
        monkeypatch.setitem(cli.VERBS, "train", lambda experiment, *_, **__: built.append(experiment))
        function(**arguments)
        assert built[0].recipe == argv[1]
