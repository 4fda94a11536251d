"""A small tokenizer, and pictures in every form that a stream can have."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from conftest import draw_image
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import vqvae

ROOT = Path(__file__).parents[2]


def png(index: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """A picture as a file."""
    held = io.BytesIO()
    Image.fromarray(draw_image(index, size)).save(held, "PNG")
    return held.getvalue()


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def files_of(out: Path) -> dict[str, bytes]:
    """What is in a folder, byte for byte."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def started(*words: object, **more: object) -> subprocess.Popen:
    """`smalti tokenize ...` in a process of its own, in a group that can be killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "smalti", "tokenize", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    Autoencoder(vqvae(image_size=16, width=8, codebook_size=300, start="random").model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """23 pictures in two class folders, of which one is bad."""
    folder = tmp_path_factory.mktemp("pictures") / "data"
    for index in range(23):
        path = folder / ("disc" if index % 2 else "circle") / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(index) if index != 5 else b"no image")
        path.with_suffix(".txt").write_text(f"picture {index}\n")
    return folder


@pytest.fixture(scope="session")
def tars(tmp_path_factory):
    """Three tar shards of 9 pictures with caption, class and record."""
    folder = tmp_path_factory.mktemp("tars")
    for shard in range(3):
        files = {}
        for index in range(9):
            number = 9 * shard + index
            files[f"{number:04}.png"] = png(number)
            files[f"{number:04}.cls"] = str(number % 4).encode()
            files[f"{number:04}.json"] = json.dumps({"caption": f"record {number}", "url": "none"}).encode()
        write_tar(folder / f"images-{shard:03}.tar", files)
    return folder
