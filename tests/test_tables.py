"""The tables of the pages are those of the result files, and the command that writes them notices what is stale."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import speed_tables
import tables


def test_the_tables_are_up_to_date(capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().out + "; run: python tools/tables.py"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A project of one page, one table and one result."""
    (tmp_path / "docs").mkdir()
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- table: encode -->\nstale\n<!-- end of table -->\nafter\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(speed_tables, "SPEED", folder)
    return tmp_path / "README.md"


def entry(variant, rate, **more):
    here = {"kernels": variant, "processor": f"P {variant}", "commit": "C", "date": "D", "threads": 1, "rounds": 7}
    rates = {"rates": {"smalti": rate, "peer": 2.0}, "ratios": {"peer": {"median": rate / 2, "range": [1.0, 9.0]}}}
    return {"workload": "w", "unit": "u/s", "peak_gflops": 1, "neighbour_load_cores": 0, **here, **rates, **more}


def write(page, *entries):
    (page.parent / "benchmarks" / "encode.json").write_text(json.dumps(entries))


def test_a_stale_table_is_noticed_and_written_anew(page, capsys):
    write(page, entry("avx2", 10.0))
    assert tables.main(["--check"]) == 1 and "README.md" in capsys.readouterr().out
    assert "stale" in page.read_text()
    assert tables.main([]) == 0 and tables.main(["--check"]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert "|  | peer | 2.00 | 5.00 (1.00 to 9.00) |" in text
    write(page, entry("avx2", 12.0))
    assert tables.main(["--check"]) == 1


def test_variants_stand_side_by_side(page):
    part = {"parts": {"the cache": {"median": 3.0, "range": [2.0, 4.0]}}}
    write(page, entry("avx2", 10.0), entry("avx512", 30.0, **part))
    tables.main([])
    text = page.read_text()
    assert "|  | peer | 2.00 | 5.00 (1.00 to 9.00) | 2.00 | 15.0 (1.00 to 9.00) |" in text
    assert "|  | *what the cache gives* |  |  |  | 3.00 (2.00 to 4.00) |" in text
    assert "- AVX2: P avx2" in text and "- AVX-512: P avx512" in text


def test_sides_of_equal_seconds_stand_in_a_table_a_data_set(page):
    assert speed_tables.quality() == []
    figures = {"usage": 1.0, "perplexity": 400.0, "border_ratio": 1.5, "period2_energy": 1.2}
    facts = {"parameters": 1000, "images_seen": 2000, "cpu_seconds": 90.1, "precision": "fp32"}
    sides = {
        "smalti vqvae": {"metrics": {"psnr_db": 22.0, **figures}, "codebook_size": 512, **facts},
        "peer": {"metrics": {"psnr_db": 21.0, **figures}, "codebook_size": 512, **facts},
    }
    of_originals = {"border_ratio": 1.0, "period2_energy": 1.7}
    result = entry("avx2", 1.0, workload="photographs", seconds=90, images=480, originals=of_originals, sides=sides)
    (page.parent / "benchmarks" / "quality.json").write_text(json.dumps([result, {**result, "workload": "others"}]))
    text = "\n".join(speed_tables.quality())
    assert "| smalti vqvae | **22.00** |" in text and text.count("| originals |") == 2
    assert "480 images of the test split of photographs" in text and "test split of others" in text
    assert "| 512 | 1,000 | 2,000 | 90.1 | fp32 |" in text and "90 CPU seconds of 1 thread" in text


def test_what_a_run_measured_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "QUALITY", tmp_path)
    (tmp_path / "x.json").write_text(json.dumps({"commands": ["c"], "metrics": {"psnr_db": 1.0}, "note": "n"}))
    (tmp_path / "run").mkdir()
    evaluation = {"data": "emoji", "split": "test", "num_images": 3, "metrics": {"psnr_db": 2.0}, "model_hash": "h"}
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"threads": 2, "torch": "2.13.0"}))
    tables.keep(tmp_path / "run", "x", "3 min")
    kept = tables.run("x")
    assert kept["metrics"] == {"psnr_db": 2.0} and kept["commands"] == ["c"] and kept["threads"] == 2
    assert kept["time"] == "3 min"
    assert set(kept) >= {"processor", "commit", "date", "note"}


@pytest.mark.parametrize("path", sorted(tables.QUALITY.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_where_it_comes_from(path):
    result = tables.run(path.stem)
    assert {"commands", "data", "split", "num_images", "metrics", "processor", "commit", "date"} <= set(result)
