"""Daft and Ray: the shards of the local engine; and shards as others read them. What is not installed is left out."""

import pytest

from .conftest import files_of, started


@pytest.fixture(scope="module")
def codes(tokenizer, pictures, tmp_path_factory):
    import smalti

    out = tmp_path_factory.mktemp("engines") / "out"
    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(out), rows_per_shard=4, workers=1)
    return out


@pytest.mark.parametrize("engine", ["daft", "ray"])
def test_an_engine_makes_the_shards_of_the_local_one(engine, tokenizer, pictures, codes, tmp_path):
    pytest.importorskip(engine)
    out = tmp_path / "out"
    words = (tokenizer, "--data", pictures, "--out", out, "--rows_per_shard", 4, "--workers", 2, "--engine", engine)
    job = started(*words, "--shard", "1/3")
    _, errors = job.communicate(timeout=280)
    assert job.returncode == 0 and len(files_of(out / "codes")) == 2, errors.decode()
    job = started(*words)
    _, errors = job.communicate(timeout=280)
    assert job.returncode == 0 and files_of(out) == files_of(codes), errors.decode()


@pytest.mark.parametrize("engine", ["daft", "ray"])
def test_an_engine_that_is_missing_is_named(engine, tokenizer, pictures, tmp_path, monkeypatch):
    import sys

    import smalti
    from smalti.errors import SmaltiError

    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(SmaltiError, match=r"pip install 'smalti\[scale\]'"):
        smalti.tokenize(str(tokenizer), data=str(pictures), out=str(tmp_path / "out"), engine=engine)


def expected(codes) -> dict[str, list[int]]:
    import pyarrow.dataset as dataset

    table = dataset.dataset(str(codes / "codes")).to_table()
    return dict(zip(table["key"].to_pylist(), table["codes"].to_pylist(), strict=True))


def test_pandas_reads_the_shards(codes):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(codes / "codes")
    assert {key: list(own) for key, own in zip(frame["key"], frame["codes"], strict=True)} == expected(codes)


def test_duckdb_reads_the_shards(codes):
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(f"select key, codes from '{codes}/codes/*.parquet'").fetchall()
    assert {key: list(own) for key, own in rows} == expected(codes)


def test_datasets_reads_the_shards(codes, tmp_path):
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset("parquet", data_files=f"{codes}/codes/*.parquet", split="train",
                                  cache_dir=str(tmp_path))  # fmt: skip
    assert {row["key"]: list(row["codes"]) for row in found} == expected(codes)


def test_daft_reads_the_shards(codes):
    daft = pytest.importorskip("daft")
    found = daft.read_parquet(f"{codes}/codes/*.parquet").to_pydict()
    assert dict(zip(found["key"], map(list, found["codes"]), strict=True)) == expected(codes)


def test_ray_reads_the_shards(codes):
    pytest.importorskip("ray")
    import subprocess
    import sys

    code = f"""
import ray
ray.init(log_to_driver=False, include_dashboard=False, num_cpus=2, object_store_memory=128 << 20)
rows = ray.data.read_parquet({str(codes / "codes")!r}).take_all()
print("RESULT", repr({{row["key"]: [int(own) for own in row["codes"]] for row in rows}}))
"""
    environment = {"RAY_worker_niceness": "0", "PATH": "/usr/bin:/bin", "HOME": str(codes)}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, env=environment)
    line = next(line for line in made.stdout.splitlines() if line.startswith("RESULT"))
    assert eval(line.removeprefix("RESULT ")) == expected(codes)
