"""The page, put together: its own few files, the graphs of a model, the runtime and a picture, all in one file."""

import base64
import gzip
import html
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.files import read_json, write_text
from smalti.images.pixels import to_uint8
from smalti.interop import onnx
from smalti.interop.check import pictures
from smalti.models.autoencoder import Autoencoder
from smalti.studio.kept import FILE, PAGE
from smalti.studio.runtime import SCRIPT, WASM, runtime

ROOMS = ("edit", "complete", "text", "compress", "codebook", "compare")  # in this order


def _of_rooms(suffix: str) -> list[str]:
    """The scripts or styles of rooms: each has page/rooms/NAME.html, and may have NAME.js and NAME.css."""
    return [name for room in ROOMS if (PAGE / (name := f"rooms/{room}.{suffix}")).is_file()]


SCRIPTS = ("parts.js", "server.js", "rooms.js", "pixels.js", "runtime.js", "grid.js", "files.js", "view.js", "brush.js",
           "panel.js", "prompt.js", *_of_rooms("js"), "studio.js")  # in this order  # fmt: skip
STYLES = ("style.css", *_of_rooms("css"))
FILES = (FILE,)
LARGEST_BYTES = 1 << 28  # of the graphs: browsers hold no longer text


def write(model: Autoencoder, folder: Path, title: str = "", counts: Tensor | None = None) -> dict[str, Any]:
    """Write the studio of a model into a folder, as one file that opens without a network; what was compared.

    Args:
        model: the tokenizer.
        folder: that is there already.
        title: the model's name, for people.
        counts: how often each code occurs in some data, (q, K) integers, for the room of the codebook.

    Raises:
        SmaltiError: a model that has no codes, no decoder, neither grey nor colour, or no graphs.
    """
    _check_fits(model)
    found = onnx.write(model, folder)
    graphs = {name: (folder / name).read_bytes() for name in (onnx.ENCODER, onnx.DECODER)}
    codebook = folder / onnx.CODEBOOK
    vectors = np.load(codebook) if codebook.exists() else np.zeros((0, 0, 0), np.float32)
    about = {**read_json(folder / onnx.RECORD), "title": title, "vector_shape": list(vectors.shape)}
    about["counts"] = None if counts is None else counts.tolist()
    for name in onnx.FILES:
        (folder / name).unlink(missing_ok=True)
    if sum(map(len, graphs.values())) > LARGEST_BYTES:
        raise SmaltiError("the graphs of this model are too large for a page; export them with --format onnx")
    write_text(folder / FILE, page(about, graphs, vectors, picture(model)))
    return {**found, "num_bytes": (folder / FILE).stat().st_size}


def page(about: dict[str, Any], graphs: dict[str, bytes], vectors: np.ndarray, png: bytes) -> str:
    """The text of the page.

    Args:
        about: the record of the graphs, with `title`, `vector_shape` and `counts`.
        graphs: the files of the encoder and the decoder, by name.
        vectors: (q, K, D) float32, or empty.
        png: the picture that it opens with.
    """
    files = runtime()
    parts = {
        "encoder": graphs[onnx.ENCODER],
        "decoder": graphs[onnx.DECODER],
        "codebook": vectors.astype("<f4").tobytes(),
        "wasm": files[WASM],
        "ort": files[SCRIPT],
        "picture": png,
    }
    text = (PAGE / "studio.html").read_text(encoding="utf-8")
    for mark, value in {
        "<!--rooms-->": _text(f"rooms/{name}.html" for name in ROOMS),
        "/*style*/": _text(STYLES),
        "<!--parts-->": "\n".join(_part(name, data) for name, data in parts.items()),
        "/*about*/": json.dumps(about).replace("<", "\\u003c"),
        "/*scripts*/": _text(SCRIPTS),
        "<!--title-->": html.escape(about["title"] or "a model"),
    }.items():
        text = text.replace(mark, value)
    return text


def picture(model: Autoencoder) -> bytes:
    """The bundled picture that the page opens with, PNG."""
    from PIL import Image

    pixels = to_uint8(pictures(model.config.preprocessing.channels)[:1])[0].numpy()
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(file, "PNG", optimize=True)
    return file.getvalue()


def _check_fits(model: Autoencoder) -> None:
    _ = model.codes_bottleneck
    if not model.networks.has_decoder:
        raise SmaltiError("this model has an encoder alone: there is no picture of its codes to show")
    if model.config.preprocessing.channels not in (1, 3):
        raise SmaltiError(f"a page shows grey or colour, not {model.config.preprocessing.channels} channels")


def _text(names: Iterable[str]) -> str:
    return "\n".join((PAGE / name).read_text(encoding="utf-8") for name in names)


def _part(name: str, data: bytes) -> str:
    """Bytes as a block of text, compressed."""
    packed = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
    return f'<script type="text/plain" id="part-{name}">{packed}</script>'
