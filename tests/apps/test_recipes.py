"""Every recipe through the command line, on every kind of data; and no option of one that is silently ignored."""

import inspect
import types
import typing

import pytest

from smalti.apps.cli import main
from smalti.apps.info import info
from smalti.configs import to_dict
from smalti.data.emoji import read_table
from smalti.errors import SmaltiError
from smalti.recipes import RECIPES
from smalti.training.log import read_metrics

RUN = ["--steps", "2", "--batch_size", "4"]
IMAGES = ["--image_size", "16", "--width", "8"]
CODEBOOK = ["--codebook_size", "16"]
SMALL = {
    **dict.fromkeys(("ae", "vae", "fsq", "lfq", "bsq"), IMAGES),
    **{name: [*IMAGES, *CODEBOOK] for name in ("vqvae", "vqgan", "dvae", "rvq", "pq")},
    **{name: ["--width", "8", "--residual_channels", "8"] for name in ("cifar_vqvae", "cifar_fsq")},
    "mlp_vae": ["--image_size", "16", "--hidden", "[16]"],
    "mnist_vae": [],
    "mnist_categorical": ["--hidden", "[16]"],
    "emoji_categorical": ["--hidden", "[16]"],
    "mnist_pixelcnn": ["--channels", "8", "--layers", "1"],
    "pixelcnn": ["--channels", "8", "--layers", "1"],
    "pixelsnail": ["--channels", "8", "--blocks", "1", "--heads", "2"],
    "transformer": ["--width", "8", "--layers", "1", "--heads", "2"],
    "maskgit": ["--width", "8", "--layers", "1", "--heads", "2"],
    "finetune": [],
}
BEGINS = {"tokenizer": "--tokenizer", "start_from": "--from"}  # keywords that name a model, and their flags


@pytest.fixture(autouse=True)
def few_emoji(monkeypatch):
    """The first 200 of the bundled emoji: reading all of them takes most of the time."""
    table = read_table()
    monkeypatch.setattr("smalti.data.sources.read_table", lambda: {**table, "rows": table["rows"][:200]})


@pytest.fixture(scope="module")
def data(image_folder, tmp_path_factory):
    """What `--data` may name: a folder, a parquet file, emoji."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path_factory.mktemp("parquet") / "images.parquet"
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(image_folder.rglob("*.png"))]
    parquet.write_table(arrow.table({"image": cells}), path)
    return {"folder": str(image_folder), "parquet": str(path), "emoji": "emoji"}


@pytest.fixture(scope="module")
def tokenizer(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("tokenizer")
    assert main(["train", "vqvae", "--data", data["folder"], "--out", str(run), *RUN, *SMALL["vqvae"]]) == 0
    return str(run)


@pytest.mark.parametrize("kind", ["folder", "parquet", "emoji"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_on_every_kind_of_data(name, kind, data, tokenizer, tmp_path):
    keywords = inspect.signature(RECIPES[name]).parameters
    needs = [word for key, flag in BEGINS.items() if key in keywords for word in (flag, tokenizer)]
    command = ["train", name, "--data", data[kind], "--out", str(tmp_path), *RUN, *SMALL[name], *needs]
    assert main(command) == 0
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert record["step"] == 2 and record["images"] == 8


@pytest.mark.parametrize("name", [name for name in RECIPES if "noise" in inspect.signature(RECIPES[name]).parameters])
def test_every_autoencoder_learns_to_restore_from_every_noise(name, data, tmp_path):
    recipe = RECIPES[name]
    noises = [
        kind for kind in typing.get_args(inspect.signature(recipe).parameters["noise"].annotation) if kind != "none"
    ]
    assert len(noises) == 3
    for noise in noises:
        command = ["train", name, "--data", data["folder"], "--out", str(tmp_path / noise), *RUN, *SMALL[name]]
        assert main([*command, "--noise", noise]) == 0
        about = info(str(tmp_path / noise))["trained_noise"]
        assert about.startswith(noise.replace("_", " ")) and about in (tmp_path / noise / "README.md").read_text()


def test_every_recipe_of_an_autoencoder_has_noise():
    for name, recipe in RECIPES.items():
        keywords = inspect.signature(recipe).parameters
        begins = keywords.keys() & BEGINS.keys()  # what is trained further has the noise that it had
        assert ("noise" in keywords) == (not begins and name != "mnist_pixelcnn"), name


def other_values(hint, default):
    """Values of a keyword that are not its default: all the others of a choice, else one."""
    options = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    if typing.get_origin(hint) in (types.UnionType, typing.Union) and typing.get_origin(options[0]) is typing.Literal:
        return other_values(options[0], default)
    if typing.get_origin(hint) is typing.Literal:
        return [value for value in options if value != default]
    kind, *_ = options if isinstance(hint, types.UnionType) else (hint,)
    if kind is bool:
        return [not default]
    if typing.get_origin(kind) is tuple:
        return [tuple(value * 0.9 for value in default) if options == [float, float] else (4, 4)]
    return [{int: 64 if default == 2 else 2, float: 0.37, str: "class"}[kind]]


def outcome(recipe, options):
    """What a recipe makes of options; None where it refuses them."""
    try:
        return to_dict(recipe(**options))
    except SmaltiError:
        return None


@pytest.mark.parametrize("name", RECIPES)
def test_no_keyword_of_a_recipe_is_silently_ignored(name, data, tokenizer):
    """Alone and beside every choice: another value is another experiment, or an error."""
    recipe, keywords = RECIPES[name], dict(inspect.signature(RECIPES[name]).parameters)
    given = {"data": data["folder"]} | {key: tokenizer for key in BEGINS if key in keywords}
    defaults = recipe.filled(**given)
    others = {key: other_values(item.annotation, defaults[key]) for key, item in keywords.items() if key not in given}
    if "preset" in others:
        others["preset"].remove("small")  # what auto takes for images of this size
        others |= {"padding": ["replicate"]}  # not the default
        others |= {"convolutions": [4], "block_ratio": [4]}
    choices = [{key: value} for key, values in others.items() for value in values if isinstance(value, str)]
    choices += [{"tokenizer": "pixels"}] if "tokenizer" in keywords else []
    for choice in ({}, *choices):
        before, values = outcome(recipe, given | choice), recipe.filled(**given | choice)
        for key in others.keys() - choice.keys():
            for value in (value for value in others[key] if value != values[key]):
                assert before is None or outcome(recipe, {**given, **choice, key: value}) != before, (
                    choice,
                    key,
                    value,
                )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("dvae --logits convolution --sharpness 2", "sharpness 2.0 has no effect without logits distance"),
        ("dvae --logits convolution --restart_below 0.3", "restart_below 0.3 has no effect without logits distance"),
        ("dvae --estimator reinforce --first_temperature 1", "first_temperature 1.0 has no effect on reinforce"),
        ("dvae --first_temperature 0.0625 --temperature_portion 0.7", "temperature_portion 0.7 has no effect where"),
        ("vae --beta 0 --beta_warmup 0.1", "beta_warmup 0.1 has no effect at beta 0"),
        ("vqvae --learning gradient --restart_below 0 --decay 0.99", "decay 0.99 has no effect without learning ema"),
        ("vqvae --perceptual_weight 1", "perceptual_weight 1.0 has no effect without perceptual"),
        ("vqvae --adversarial_start 0.5", "adversarial_start 0.5 has no effect without adversarial_weight"),
        ("vqvae --discriminator_width 64", "discriminator_width 64 has no effect without adversarial_weight"),
        ("vqvae --noise_level 0.1", "noise_level 0.1 has no effect without noise"),
        ("mnist_vae --noise gaussian --noise_patch 1", "noise_patch 1 has no effect without noise masking"),
        ("rvq --num_codebooks 1 --drop 0.5", "drop 0.5 has no effect with one codebook"),
        ("mnist_categorical --temperature_portion 0.5", "temperature_portion 0.5 has no effect where"),
        ("mnist_categorical --estimator reinforce --last_temperature 1", "last_temperature 1.0 has no effect on"),
        ("emoji_categorical --estimator reinforce --temperature 0.5", "temperature 0.5 has no effect on reinforce"),
        ("pixelcnn --tokenizer {tokenizer} --levels 256", "levels 256 has no effect without tokenizer pixels"),
        ("pixelcnn --tokenizer {tokenizer} --image_size 32", "image_size 32 has no effect without tokenizer pixels"),
        (
            "maskgit --tokenizer {tokenizer} --condition_dropout 0.1",
            "condition_dropout 0.1 has no effect without label",
        ),
        ("transformer --tokenizer {tokenizer} --text_vocabulary 300", "text_vocabulary 300 has no effect without text"),
        ("maskgit --tokenizer {tokenizer} --text_length 24", "text_length 24 has no effect without text"),
    ],
)
def test_an_option_without_effect_is_refused_though_it_is_the_default(
    command, message, data, tokenizer, capsys, tmp_path
):
    argv = ["train", *command.format(tokenizer=tokenizer).split(), "--data", data["folder"], "--out", str(tmp_path)]
    argv += RUN
    capsys.readouterr()
    assert main(argv) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("smalti:")]
    assert message in line and "leave it out" in line


def test_a_prior_reads_no_weights_of_its_tokenizer(data, tokenizer, monkeypatch):
    monkeypatch.setattr("smalti.files.read_tensors", lambda *_: pytest.fail("weights were read"))
    monkeypatch.setattr("smalti.pretrained.read_tensors", lambda *_: pytest.fail("weights were read"))
    model = RECIPES["pixelcnn"](tokenizer=tokenizer, data=data["folder"]).model
    assert (model.codebook_size, model.grid) == (16, (4, 4))


def test_unknown_and_missing_keywords_are_named():
    for options, message in (
        ({"widht": 8}, "vqvae: unknown keyword 'widht'; did you mean 'width'?"),
        ({"seed": 8}, r"vqvae: unknown keyword 'seed'; it is a setting of the run: train\(experiment, out, seed="),
    ):
        with pytest.raises(SmaltiError, match=message):
            RECIPES["vqvae"](**options)
    with pytest.raises(SmaltiError, match="mnist_vae: the keyword 'data' is missing"):
        RECIPES["mnist_vae"]()
    with pytest.raises(SmaltiError, match="a run has no setting 'step'; did you mean 'steps'?"):
        RECIPES["vqvae"]().with_settings(step=3)


@pytest.mark.parametrize("name", RECIPES)
def test_every_flag_of_a_recipe_is_explained(name, capsys):
    assert main(["train", name, "--help"]) == 0
    text = capsys.readouterr().out
    for flag in inspect.signature(RECIPES[name]).parameters:
        entry = text.partition(f"  {BEGINS.get(flag, f'--{flag}')} ")[2].partition("\n  --")[0]
        assert len(entry.partition("(")[0].split()) > 1, flag  # more than the value's name
