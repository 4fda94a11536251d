"""`smalti report`: one table of several runs, whose numbers are those of their evaluation.json."""

import copy
import csv
import html
import json
import re
import shutil

import pytest

import smalti
from smalti.apps.cli import main
from smalti.errors import SmaltiError
from smalti.evaluation.catalogue import METRICS, describe, format_metric, format_number, heading
from smalti.files import WEIGHTS
from smalti.recipes import ae, pixelcnn, vqvae
from smalti.reports.tables import (
    Row,
    as_csv,
    as_html,
    as_markdown,
    as_records,
    markdown_text,
    measured_alike,
    metric_names,
    notes,
)

EVALUATION = {
    "data": "emoji",
    "split": "test",
    "num_images": 335,
    "model_hash": "0" * 64,
    "preprocessing": {"image_size": 32, "channels": 3, "binarize": "none"},
    "metrics": {"psnr_db": 23.0712345, "ssim": 0.7604321, "usage": 0.98046875},
}
ODD = ("a | b", "c, d", "<e> & 'f'", '"g"', "*h*", "`i`", "[j](k)", "_l_", "m_n_o", "ä ± 日本")


def row(name="a", /, metrics=None, about=None, **more):
    evaluation = {**copy.deepcopy(EVALUATION), **more}
    return Row(name, evaluation | ({} if metrics is None else {"metrics": metrics}), about or {})


def cells(markdown):
    """The cells of every table row, with Markdown's escapes undone."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [
        [re.sub(r"\\(.)", r"\1", cell) for cell in re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))]
        for line in lines
    ]


# ------------------------------------------------------------------ the catalogue


def test_headings_are_different_and_meanings_one_sentence():
    headings = [heading(name) for name in METRICS]
    assert len(set(headings)) == len(headings)
    for metric in METRICS.values():
        assert metric.meaning.endswith(".") and not re.search(r"[a-z)]\. [A-Z]", metric.meaning)


def test_values_are_written_in_the_catalogues_form():
    assert format_metric("psnr_db", 23.456) == "23.46" and format_metric("psnr_db", 23.456, 0.123) == "23.46 ± 0.12"
    assert format_metric("usage", 0.98765, 0.01) == "98.8% ± 1.0%"
    assert format_metric("elbo_nats", -12345.6, 123.4) == "-12346 ± 123"
    assert format_metric("of_a_users_own", 0.000123456) == "0.0001235" == format_number(0.000123456)
    assert format_metric("elbo_nats", float("inf")) == "inf"
    assert heading("psnr_db") == "PSNR, dB ↑" and heading("mse") == "MSE ↓" and heading("rate_nats") == "rate, nats"
    assert heading("of_a_users_own") == "of_a_users_own" and describe("of_a_users_own").better == ""


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize("name", ODD)
def test_odd_names_survive_every_form(name):
    rows = [row(name), row("other", {"psnr_db": 1.0})]
    assert cells(as_markdown(rows))[2][0] == name
    assert next(csv.DictReader(as_csv(rows).splitlines()))["name"] == name
    page = as_html(rows)
    assert ("<e>" not in page) and re.sub("<[^>]*>", "", page)


def test_markdown_escapes_what_would_mean_something():
    assert markdown_text("a|b <c> *d* m_n") == r"a\|b \<c\> \*d\* m_n"
    assert markdown_text("two\nlines") == "two lines" and markdown_text("[0, 1]") == "[0, 1]"


def test_the_best_of_a_column_stands_out_and_ties_share_it():
    metrics = [{"psnr_db": 20.0, "mse": 0.2, "rate_nats": 3.0}, {"psnr_db": 21.001, "mse": 0.1, "rate_nats": 2.0}]
    rows = [row("a", metrics[0]), row("b", metrics[1]), row("c", {"psnr_db": 21.0, "mse": float("nan")})]
    header, _, *body = cells(as_markdown(rows))
    assert header == ["run", "PSNR, dB ↑", "MSE ↓", "rate, nats"]
    assert body == [
        ["a", "20.00", "0.2", "3"],
        ["b", "**21.00**", "**0.1**", "2"],
        ["c", "**21.00**", "nan", "-"],
    ]
    assert as_html(rows).count("<b>") == 3
    assert "**" not in as_markdown(rows[:1])  # of one run, nothing is the best


def test_columns_are_in_the_catalogues_order_then_the_users_own():
    rows = [row("a", {"own": 1.0, "ssim": 0.5}), row("b", {"psnr_db": 1.0, "probe": {"accuracy": 1.0}})]
    assert metric_names(rows) == ["psnr_db", "ssim", "own"]
    assert metric_names(rows, ["ssim", "psnr_db"]) == ["psnr_db", "ssim"]
    with pytest.raises(SmaltiError, match="did you mean 'psnr_db'"):
        metric_names(rows, ["psnr_bd"])
    with pytest.raises(SmaltiError, match="no run has mse"):
        metric_names(rows, ["mse"])


def test_spreads_and_originals():
    more = {"spread": {"psnr_db": 0.42}, "originals": {"border": 1.01}}
    rows = [row("a", {"psnr_db": 23.0, "border": 1.5}, **more), row("b", {"psnr_db": 22.0, "border": 1.2})]
    _, _, originals, first, second = cells(as_markdown(rows))
    assert originals == ["originals", "-", "1.01"] and first == ["a", "**23.00 ± 0.42**", "1.5"]
    assert second == ["b", "22.00", "1.2"] and "± is the standard error" in as_markdown(rows)
    unlike = [rows[0], row("b", {"psnr_db": 22.0, "border": 1.2}, originals={"border": 1.3})]
    assert [line[2] for line in cells(as_markdown(unlike))[2:]] == [
        "1.5 (originals 1.01)",
        "**1.2 (originals 1.3)**",  # nearest its originals
    ]
    records = as_records(rows)
    assert [record["psnr_db_spread"] for record in records] == [0.42, None]
    assert [record["border_originals"] for record in records] == [1.01, None]


UNLIKE = [
    ({"data": "photos"}, "data: 'emoji' against 'photos'"),
    ({"split": "validation"}, "split"),
    ({"num_images": 100}, "num_images: 335 against 100"),
    ({"preprocessing": {**EVALUATION["preprocessing"], "image_size": 64}}, "preprocessing.image_size: 32 against 64"),
]


@pytest.mark.parametrize(("change", "why"), UNLIKE, ids=lambda value: next(iter(value)) if len(value) == 1 else "")
def test_runs_measured_on_something_else_get_a_table_of_their_own(change, why):
    rows = [row("first"), row("other", **change), row("third")]
    assert [[one.name for one in group] for group in measured_alike(rows)] == [["first", "third"], ["other"]]
    (line,) = notes(rows)
    assert "first, third and other" in line and why in line
    markdown = as_markdown(rows)
    assert markdown.count("\n| --- |") == 2 and why in markdown and why.replace("'", "&#x27;") in as_html(rows)


def test_what_an_evaluation_does_not_say_is_no_difference():
    """An older evaluation without a feature network stands beside one with; two networks do not."""
    old, one, other = row("old"), row("one", networks={"n": {"hash": "1"}}), row("other", networks={"n": {"hash": "2"}})
    assert len(measured_alike([old, one])) == 1 and len(measured_alike([one, other])) == 2
    assert len(measured_alike([row(importance_samples=0), row(importance_samples=5)])) == 1
    assert len(measured_alike([row(importance_samples=50), row(importance_samples=5)])) == 2


def test_priors_and_autoencoders_are_apart_and_so_are_priors_of_other_codes():
    rows = [row("ae"), row("one", tokenizer_hash="1"), row("two", tokenizer_hash="2"), row("again", tokenizer_hash="1")]
    groups = [[one.name for one in group] for group in measured_alike(rows)]
    assert groups == [["ae"], ["one", "again"], ["two"]]
    assert len(notes(rows)) == 1  # nobody compares priors with autoencoders: only the codes need a word


def test_csv_has_the_numbers_in_full():
    rows = [row("a", about={"num_parameters": 7}), row("b", {"psnr_db": 1 / 3}, data="photos, mine")]
    first, second = csv.DictReader(as_csv(rows).splitlines())
    assert {name: float(first[name]) for name in EVALUATION["metrics"]} == EVALUATION["metrics"]
    assert float(second["psnr_db"]) == 1 / 3 and second["ssim"] == "" and second["data"] == "photos, mine"
    assert first["num_parameters"] == "7" and second["num_parameters"] == ""


# ------------------------------------------------------------------ the verb


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_folder):
    """Evaluated runs: two autoencoders of one size, one of another, and a prior."""
    folder, data = tmp_path_factory.mktemp("runs"), str(image_folder)
    small = {"data": data, "width": 8}
    settings = {"steps": 2, "batch_size": 4}
    smalti.train(ae(image_size=16, **small), str(folder / "ae"), **settings)
    smalti.train(vqvae(image_size=16, codebook_size=16, **small), str(folder / "vqvae"), **settings)
    smalti.train(ae(image_size=8, **small), str(folder / "tiny"), **settings)
    prior = pixelcnn(tokenizer=str(folder / "vqvae"), data=data, channels=8, layers=1)
    smalti.train(prior, str(folder / "prior"), **settings)
    for name in ("ae", "vqvae", "tiny", "prior"):
        smalti.evaluate(str(folder / name), data)
    return folder


def evaluation_of(run):
    return json.loads((run / "evaluation.json").read_text())


def test_the_table_has_the_numbers_of_the_evaluations(runs, tmp_path, capsys):
    chosen = [str(runs / name) for name in ("ae", "vqvae", "prior")]
    assert main(["report", *chosen, "--out", str(tmp_path), "--images", "3"]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "report.md").read_text().strip() in out and f"wrote {tmp_path / 'report.html'}" in out
    tables = re.findall(r"(?:^\| .*\n)+", out, flags=re.MULTILINE)
    assert len(tables) == 2
    for table, names in zip(tables, (("ae", "vqvae"), ("prior",)), strict=True):
        header, _, *body = cells(table)
        runs_of = [line for line in body if line[0] != "originals"]
        assert [line[0] for line in runs_of] == list(names)
        for line in runs_of:
            evaluation, shown = evaluation_of(runs / line[0]), dict(zip(header, line, strict=True))
            assert shown["steps"] == "2"
            for name, value in evaluation["metrics"].items():
                assert shown[heading(name)].strip("*") == format_metric(name, value, evaluation["spread"].get(name))
    records = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    for record, run in zip(records, chosen, strict=True):
        assert record["run"] == run
        for name, value in evaluation_of(runs / record["name"])["metrics"].items():
            assert float(record[name]) == value
    assert [record["nominal_bits"] for record in records] == ["", "64.0", "64.0"]


def test_the_page_shows_the_same_images_and_loads_nothing(runs, tmp_path):
    chosen = [str(runs / name) for name in ("ae", "vqvae", "tiny", "prior")]
    result = smalti.report(chosen, out=str(tmp_path), images=3)
    page = (tmp_path / "report.html").read_text()
    assert (
        page.count("<img ") == (1 + 2) + (1 + 1) and page.count("<figcaption>originals<") == 2
    )  # a group for each size
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "@import" not in page and "url(" not in page
    assert "image_size: 16 against 8" in page and html.unescape(page).count(describe("psnr_db").meaning) == 1
    assert [one["name"] for one in result["rows"]] == ["ae", "vqvae", "tiny", "prior"]
    smalti.report(chosen, out=str(tmp_path), images=0, force=True)
    assert "<img" not in (tmp_path / "report.html").read_text()


def test_json_gives_the_rows(runs, tmp_path, capsys):
    assert main(["report", str(runs / "ae"), "--out", str(tmp_path), "--images", "2", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["rows"]
    assert only["psnr_db"] == evaluation_of(runs / "ae")["metrics"]["psnr_db"]


def test_names_and_metrics_are_chosen(runs, tmp_path, capsys):
    argv = ["report", str(runs / "ae"), str(runs / "vqvae"), "--out", str(tmp_path), "--images", "0"]
    assert main([*argv, "--names", '"a, b",<c|d>', "--metrics", "ssim,psnr_db"]) == 0
    header, _, first, second = cells(capsys.readouterr().out)
    assert header[:3] == ["run", "PSNR, dB ↑", "SSIM ↑"] and (first[0], second[0]) == ("a, b", "<c|d>")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--names", "a"], "there are 1 names for 2 runs"),
        (["--names", "a,a"], "'a' twice"),
        (["--names", "a,"], "empty place"),
        (["--metrics", "psnr"], "did you mean 'psnr_db'"),
        (["--metrics", "nll_nats"], "no run has nll_nats"),
        (["--metrics", ","], "empty place"),
        (["--images", "-1"], "images must be 0 or more, not -1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(runs, tmp_path, capsys, more, message):
    assert main(["report", str(runs / "ae"), str(runs / "vqvae"), "--out", str(tmp_path / "out"), *more]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not (tmp_path / "out").exists()


def test_what_cannot_be_reported_is_refused(runs, tmp_path):
    def refused(message, *chosen, **more):
        with pytest.raises(SmaltiError, match=message):
            smalti.report([str(run) for run in chosen], out=str(tmp_path / "out"), **more)
        assert not (tmp_path / "out").exists()

    refused("no run to report")
    refused("listed twice", runs / "ae", runs / ".." / runs.name / "ae")
    refused("not the folder of a run", tmp_path / "nowhere")
    refused("on priors alone", runs / "prior", images=3)
    copied = shutil.copytree(runs / "ae", tmp_path / "copied")
    (copied / "evaluation.json").unlink()
    refused(f"not been evaluated; run: smalti evaluate {copied} --data", copied)
    (copied / "evaluation.json").write_text('{"metrics": {}}')
    refused("lacks data, split, num_images, model_hash", copied)
    (copied / "evaluation.json").write_text(json.dumps({**evaluation_of(runs / "ae"), "data_config": {"data": "gone"}}))
    refused("images 0", copied)
    shutil.copy(runs / "ae" / "evaluation.json", copied)
    shutil.copy(runs / "tiny" / WEIGHTS, copied)
    refused(f"is stale: .*; run: smalti evaluate {copied} --data .* --split test", copied)


def test_runs_of_the_same_name_are_told_apart_by_their_paths(runs, tmp_path):
    copied = shutil.copytree(runs / "ae", tmp_path / "ae")
    result = smalti.report([str(runs / "ae"), str(copied)], out=str(tmp_path / "out"), images=0)
    assert [one["name"] for one in result["rows"]] == [str(runs / "ae"), str(copied)]
