"""Defaults of recipes that follow the size of the images: presets."""

from pathlib import Path

import pytest

from smalti.errors import SmaltiError
from smalti.recipes import RECIPES, dvae, vqvae
from smalti.recipes.sizes import LONG_MINUTES, PRESETS

PAGE = Path(__file__).parents[2] / "docs" / "photographs.md"


def test_the_page_says_what_the_presets_are():
    table = PAGE.read_text(encoding="utf-8").partition("<!-- presets -->")[2].partition("<!-- end of presets -->")[0]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n") if line]
    names = [cell.strip("`") for cell in head[1:]]
    assert names == list(PRESETS)
    said = set()
    for what, *cells in rows:
        recipes, _, flag = what.rpartition(":")
        flag = flag.strip(" `-")
        minutes = float(recipes.split()[0]) if "minutes" in recipes else None
        assert minutes in (None, LONG_MINUTES)
        for name in ["vqvae"] if not recipes or minutes else recipes.replace("`", "").split(", "):
            for preset, cell in zip(names, cells, strict=True):
                value = RECIPES[name].filled(data="", preset=preset, minutes=minutes)[flag]
                listed = value if isinstance(value, tuple) else (value,)
                assert cell == " ".join(f"{one:g}" if isinstance(one, float) else f"{one}" for one in listed).replace(
                    "False", "false"
                ).replace("True", "true"), (what, preset)
        said.add(flag)
    assert said == {"image_size"}.union(
        *({*preset.settings, *preset.longer}.union(*preset.codes.values()) for preset in PRESETS.values())
    )


def test_the_size_of_the_images_chooses():
    chosen = {32: 4, 48: 4, 64: 4, 96: 4, 128: 8, "96x128": 8, 192: 8, "192x200": 16, 1024: 16}
    for size, stride in chosen.items():
        networks = vqvae(data="x", image_size=size).model.networks
        assert (networks["stride"], networks["patch"] > 2) == (stride, stride > 4), size
    assert vqvae(data="x", preset="photo128").model.preprocessing.image_size == 128
    assert vqvae(data="x", preset="photo128", image_size=32).model.bottleneck["codebook_size"] == 16384


def test_what_is_given_stays():
    made = vqvae(data="x", image_size=128, stride=2, codebook_size=64, batch_size=3, width=8, muon_rate=0.0, steps=7)
    assert made.model.networks["patch"] == made.model.networks["stride"] == 2 and made.model.networks["width"] == 8
    assert made.model.bottleneck["codebook_size"] == 64 and made.optimizer.muon_rate == 0
    assert (made.run.batch_size, made.run.steps) == (3, 7)
    assert dvae(data="x", image_size=128, networks="vqgan").model.networks["multipliers"] == (1, 2)
    with pytest.raises(SmaltiError, match="steps 9 has no effect with minutes 2"):
        vqvae(data="x", steps=9, minutes=2)
    with pytest.raises(SmaltiError, match="pooling average has no effect on vqgan networks"):
        vqvae(data="x", networks="vqgan", pooling="average")
    with pytest.raises(SmaltiError, match="stride must be patch times 2 for each of the multipliers but the first"):
        vqvae(data="x", networks="vqgan", multipliers=(1, 2, 2))


def test_long_budgets_have_larger_networks():
    widths = [vqvae(data="x", image_size=128, minutes=minutes).model.networks["width"] for minutes in (3, LONG_MINUTES)]
    assert widths[0] < widths[1]
    assert vqvae(data="x", minutes=60).model.networks == vqvae(data="x").model.networks
