"""Code shards: the same bytes whoever makes them and however often he is killed; every key once; what is refused."""

import json
import os
import time

import numpy as np
import pyarrow.dataset as dataset
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

import smalti
from conftest import draw_image
from smalti.apps.tokenize import share_of
from smalti.data.code_shards import read_manifest
from smalti.errors import SmaltiError
from smalti.files import file_hash
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import rvq

from .conftest import files_of, started, write_tar


def codes_in(out):
    """Key to codes, of all shards."""
    table = dataset.dataset(str(out / "codes")).to_table()
    return dict(zip(table["key"].to_pylist(), table["codes"].to_pylist(), strict=True))


@pytest.fixture(scope="session")
def undisturbed(tokenizer, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("codes") / "out"
    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(out), rows_per_shard=4, workers=1, batch_size=3)
    return out


def test_every_image_has_the_codes_of_the_model(tokenizer, pictures, undisturbed):
    found, model = codes_in(undisturbed), Autoencoder.from_pretrained(tokenizer)
    assert len(found) == 22 and "disc/005.png" not in found
    for key, codes in found.items():
        assert codes == model.encode(pictures / key).flatten().tolist()
    rows = parquet.read_table(undisturbed / "codes" / "00000-00000.parquet").to_pylist()
    assert [row["key"] for row in rows] == [f"circle/{index:03}.png" for index in (0, 2, 4, 6)]
    assert rows[1] | {"codes": None} == {"key": "circle/002.png", "codes": None, "height": 16, "width": 16,
                                         "split": "validation", "label": "circle", "caption": "picture 2"}  # fmt: skip


def test_the_manifest_says_what_the_shards_are(tokenizer, undisturbed):
    manifest = read_manifest(undisturbed)
    about, table = manifest.codes_of, dataset.dataset(str(undisturbed / "codes")).to_table()
    assert (manifest.num_images, manifest.num_bad_images, sum(manifest.splits.values())) == (22, 1, 22)
    assert about.tokenizer_hash == file_hash(tokenizer / "model.safetensors") and about.codebook_size == 300
    assert about.fingerprint == smalti.open_data(about.data).fingerprint
    assert str(table.schema.field("codes").type) == "fixed_size_list<element: uint16>[16]"
    assert {own.name: str(own.type) for own in table.schema} == manifest.columns
    for shard in manifest.shards:
        path = undisturbed / "codes" / shard.name
        assert (file_hash(path), path.stat().st_size) == (shard.sha256, shard.bytes)
        assert parquet.read_metadata(path).num_rows == shard.rows <= 4
        assert json.loads(parquet.read_schema(path).metadata[b"smalti"])["grid"] == [4, 4]
    bad = [json.loads(line) for line in (undisturbed / "bad.jsonl").read_text().splitlines()]
    assert [row["key"] for row in bad] == ["disc/005.png"] and "not an image" in bad[0]["why"]
    assert sorted(path.name for path in undisturbed.iterdir()) == ["bad.jsonl", "codes", "manifest.json"]


@pytest.mark.parametrize(("size", "dtype"), [(200, "uint8"), (256, "uint8"), (257, "uint16"), (70_000, "uint32")])
def test_codes_are_of_the_smallest_type(size, dtype):
    from smalti.data.code_shards import CodesOf
    from smalti.images.preprocessing import Preprocessing

    texts = dict.fromkeys(("data", "fingerprint", "tokenizer", "tokenizer_hash", "smalti"), "")
    about = CodesOf(split="all", codebook_size=size, grid=(2, 3), codebooks=1, preprocessing=Preprocessing(),
                    precision="fp32", rows_per_shard=1, **texts)  # fmt: skip
    assert str(about.schema.field("codes").type) == f"fixed_size_list<element: {dtype}>[6]"


def test_batches_and_a_second_call_change_no_byte(tokenizer, pictures, undisturbed, tmp_path, capsys):
    options = {"data": str(pictures), "out": str(tmp_path / "out"), "rows_per_shard": 4}
    smalti.tokenize(str(tokenizer), workers=1, batch_size=64, **options)
    assert files_of(tmp_path / "out") == files_of(undisturbed)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    capsys.readouterr()
    again = smalti.tokenize(str(tokenizer), workers=1, **options)
    assert again["complete"] and "is complete: nothing is left to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == stamps


def test_the_threads_of_this_process_are_left_as_they_were(tokenizer, pictures, tmp_path):
    torch.set_num_threads(2)
    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(tmp_path / "out"), workers=1)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_jobs_do_their_shares_and_the_last_writes_the_manifest(
    order, tokenizer, pictures, undisturbed, tmp_path, capsys
):
    for place, number in enumerate(order):
        found = smalti.tokenize(str(tokenizer), data=str(pictures), out=str(tmp_path / "out"), rows_per_shard=4,
                                shard=f"{number}/3", workers=1)  # fmt: skip
        assert found["complete"] == (tmp_path / "out" / "manifest.json").exists() == (place == 2)
        assert place == 2 or "are left to other jobs" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == files_of(undisturbed)


def test_a_call_without_a_share_ends_what_jobs_have_left(tokenizer, pictures, undisturbed, tmp_path):
    options = {"data": str(pictures), "out": str(tmp_path / "out"), "rows_per_shard": 4, "workers": 1}
    smalti.tokenize(str(tokenizer), shard="1/4", **options)
    smalti.tokenize(str(tokenizer), **options)
    assert files_of(tmp_path / "out") == files_of(undisturbed)


def test_jobs_at_once_make_the_same_shards(tokenizer, pictures, undisturbed, tmp_path):
    """Some shards are even of both."""
    out = tmp_path / "out"
    words = (tokenizer, "--data", pictures, "--out", out, "--rows_per_shard", 4, "--workers", 1, "--shard")
    jobs = [started(*words, share) for share in ("0/1", "1/2")]
    errors = [job.communicate(timeout=300)[1].decode() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    assert files_of(out) == files_of(undisturbed)


def test_of_jobs_that_begin_at_once_one_writes_the_settings(tokenizer, pictures, undisturbed, tmp_path, monkeypatch):
    link = os.link

    def linked_by_another_before(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", linked_by_another_before)
    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(tmp_path / "out"), rows_per_shard=4, workers=1)
    assert files_of(tmp_path / "out") == files_of(undisturbed)


def test_a_job_of_several_processes_that_is_killed_goes_on(tokenizer, pictures, undisturbed, tmp_path):
    out = tmp_path / "out"
    job = started(tokenizer, "--data", pictures, "--out", out, "--rows_per_shard", 4, "--workers", 2)
    while job.poll() is None and not any((out / "codes").glob("*.parquet")):
        time.sleep(0.01)
    job.kill()  # not its group: workers have to see for themselves that they are alone
    job.communicate(timeout=60)  # the pipes are closed when they are gone
    smalti.tokenize(str(tokenizer), data=str(pictures), out=str(out), rows_per_shard=4, workers=1)
    assert files_of(out) == files_of(undisturbed)


def test_a_death_at_any_file_operation_leaves_what_can_go_on(tokenizer, pictures, undisturbed, tmp_path, monkeypatch):
    """The process ends before its n-th renaming, for each n."""

    class Killed(BaseException):
        pass

    options = {"data": str(pictures), "out": str(tmp_path / "out"), "rows_per_shard": 8, "workers": 1}
    replace, deaths = type(tmp_path).replace, 0
    for death in range(1, 20):
        left = death

        def counted(path, target):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return replace(path, target)

        with monkeypatch.context() as patched:
            patched.setattr(type(tmp_path), "replace", counted)
            try:
                smalti.tokenize(str(tokenizer), **options | {"out": str(tmp_path / f"out{death}")})
            except Killed:
                deaths += 1
        smalti.tokenize(str(tokenizer), **options | {"out": str(tmp_path / f"out{death}")})
        if death > 1:
            assert files_of(tmp_path / f"out{death}") == files_of(tmp_path / "out1")
    assert deaths >= 8
    assert codes_in(tmp_path / "out1") == codes_in(undisturbed)


def test_damaged_shards_are_made_anew(tokenizer, pictures, undisturbed, tmp_path):
    options = {"data": str(pictures), "out": str(tmp_path / "out"), "rows_per_shard": 4, "workers": 1}
    smalti.tokenize(str(tokenizer), shard="0/2", **options)
    first = tmp_path / "out" / "codes" / "00000-00000.parquet"
    os.truncate(first, 100)
    smalti.tokenize(str(tokenizer), **options)
    assert files_of(tmp_path / "out") == files_of(undisturbed)


def test_what_is_refused(tokenizer, pictures, undisturbed, tmp_path):
    options = {"data": str(pictures), "workers": 1}

    def refuse(match, run=tokenizer, **more):
        with pytest.raises(SmaltiError, match=match) as caught:
            smalti.tokenize(str(run), **{**options, "out": str(undisturbed), "rows_per_shard": 4, **more})
        assert "\n" not in str(caught.value)

    before = files_of(undisturbed)
    refuse("holds codes of other settings: rows_per_shard: 4 -> 5; choose another --out", rows_per_shard=5)
    refuse(r"grid: \[4, 4\] -> \[8, 8\] \(and 1 more\)", image_size="32")
    refuse("split: 'all' -> 'train'", split="train")
    other = tmp_path / "other"
    Autoencoder(smalti.RECIPES["vqvae"](image_size=16, width=8, codebook_size=300).model).save_pretrained(other)
    refuse("tokenizer_hash: ", run=other)
    changed = tmp_path / "changed"
    changed.mkdir()
    Image.fromarray(draw_image(0)).save(changed / "a.png")
    refuse("fingerprint: ", data=str(changed))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refuse("holds files that are no shards of codes; choose another --out", out=str(tmp_path / "full"))
    refuse("--shard is i/n", shard="3/3")
    refuse("--rows_per_shard must be at least 1", rows_per_shard=0)
    vae = tmp_path / "vae"
    Autoencoder(smalti.RECIPES["vae"](image_size=16, width=8).model).save_pretrained(vae)
    refuse("this model has no codes", run=vae)
    assert files_of(undisturbed) == before


@pytest.mark.parametrize("text", ["", "1", "1/", "a/2", "2/2", "-1/2", "1/2/3"])
def test_shares_are_below_their_count(text):
    assert share_of("0/1") == (0, 1) and share_of("7/8") == (7, 8)
    with pytest.raises(SmaltiError, match="from 0 to n - 1"):
        share_of(text)


def test_other_settings_are_refused_before_the_end_too(tokenizer, pictures, tmp_path):
    options = {"data": str(pictures), "out": str(tmp_path / "out"), "workers": 1}
    smalti.tokenize(str(tokenizer), shard="0/2", rows_per_shard=4, **options)
    with pytest.raises(SmaltiError, match="rows_per_shard: 4 -> 3"):
        smalti.tokenize(str(tokenizer), shard="1/2", rows_per_shard=3, **options)


def test_one_bad_part_does_not_hold_the_others(tokenizer, tars, tmp_path):
    for path in tars.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "images-001.tar").read_bytes()
    (tmp_path / "images-001.tar").write_bytes(whole[:5000])
    options = {"data": str(tmp_path / "images-{000..002}.tar"), "out": str(tmp_path / "out"), "rows_per_shard": 4}
    with pytest.raises(SmaltiError, match=r"1 of 3 parts of the job failed: .*images-001.tar: cut off or no tar file"):
        smalti.tokenize(str(tokenizer), workers=1, **options)
    names = sorted(path.name for path in (tmp_path / "out" / "codes").iterdir())
    assert {"00000-00002.parquet", "00002-00002.parquet"} <= set(names)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_data_without_a_good_image_is_an_error(tokenizer, tmp_path):
    write_tar(tmp_path / "bad.tar", {"1.png": b"no", "2.png": b"none"})
    with pytest.raises(SmaltiError, match="none of its 2 images can be read; the first: bad.tar/1.png"):
        smalti.tokenize(str(tokenizer), data=str(tmp_path / "bad.tar"), out=str(tmp_path / "out"), workers=1)


def test_codes_of_several_codebooks_stand_side_by_side(pictures, tmp_path):
    folder = tmp_path / "model"
    model = Autoencoder(rvq(image_size=16, width=8, codebook_size=16, num_codebooks=2).model)
    model.save_pretrained(folder)
    smalti.tokenize(str(folder), data=str(pictures), out=str(tmp_path / "out"), workers=1)
    about, found = read_manifest(tmp_path / "out").codes_of, codes_in(tmp_path / "out")
    assert (about.grid, about.codebooks) == ((4, 8), 2)
    own = Autoencoder.from_pretrained(folder).encode(pictures / "disc" / "001.png")
    assert found["disc/001.png"] == own.permute(0, 2, 3, 1).flatten().tolist()


def test_binary_images_are_sampled_once(tmp_path, pictures):
    from smalti.data.batches import Pixels
    from smalti.images.pixels import to_float

    config = smalti.RECIPES["vqvae"](image_size=16, width=8, codebook_size=16, start="random", binarize="fixed").model
    model = Autoencoder(config)
    model.save_pretrained(tmp_path / "model")
    smalti.tokenize(str(tmp_path / "model"), data=str(pictures), out=str(tmp_path / "out"), workers=1)
    source = smalti.open_data(pictures)
    pixels = Pixels(source, config.preprocessing, memory_bytes=0)
    for index, image in pixels.readable():
        own = model.encode(to_float(torch.from_numpy(image[None]))).flatten().tolist()
        assert codes_in(tmp_path / "out")[source.name_of(index)] == own


def test_the_class_maps_batches_of_files(tokenizer, pictures):
    """What Ray's map_batches and Daft call, in a pipeline of somebody's own."""
    from smalti.scale.worker import Tokenizer

    paths = sorted(path for path in pictures.rglob("*.png") if path.stem != "005")
    batch = {"image": [path.read_bytes() for path in paths], "name": np.array([path.name for path in paths])}
    found = Tokenizer(str(tokenizer))(batch)
    assert found["codes"].shape == (22, 16) and found["codes"].dtype == np.uint16 and list(found) == ["name", "codes"]
    assert torch.equal(torch.from_numpy(found["codes"].astype(int)),
                       Autoencoder.from_pretrained(tokenizer).encode(paths).flatten(1))  # fmt: skip
