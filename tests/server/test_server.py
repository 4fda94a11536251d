"""The API gives what the model gives, and a 4xx with one line to whatever is wrong; nothing in a request is a path."""

import asyncio
import html
import io
import json
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.apps import serve as serve_module
from smalti.apps.serve import serve
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Preprocessing
from smalti.images.reading import to_pil
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.server.app import application
from smalti.server.limits import MEANINGS, Limits
from smalti.server.served import Served
from smalti.studio import page

testclient = pytest.importorskip("fastapi.testclient")

NETWORKS = {"kind": "strided", "stride": 4, "width": 8, "depth": 0, "residual_channels": 4}
BOTTLENECKS = {
    "vq": {"kind": "vector_quantizer", "codebook_size": 24, "code_dim": 4, "start": "random"},
    "residual": {"kind": "residual_quantizer", "num_codebooks": 2, "codebook_size": 8, "code_dim": 4,
                 "quantizer": {"start": "random"}},
}  # fmt: skip
LIMITS = Limits(upload_bytes=1 << 16, pixels=1 << 14, waiting=2)


def model_of(name):
    torch.manual_seed(0)
    config = AutoencoderConfig(
        networks=NETWORKS, bottleneck=BOTTLENECKS[name], preprocessing=Preprocessing(image_size=16)
    )
    return Autoencoder(config).eval()


MODELS = {name: model_of(name) for name in BOTTLENECKS}


def png(height=18, width=27):
    file = io.BytesIO()
    Image.fromarray(draw_image(3, (height, width))).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def client():
    with testclient.TestClient(application(Served(MODELS, limits=LIMITS), {"vq": "<p>the page"})) as client:
        yield client


def pixels(answer):
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_the_model(client, name):
    model, file = MODELS[name], png()
    codes = model.encode(Image.open(io.BytesIO(file)))
    found = client.post("/v1/encode", params={"model": name}, content=file).json()
    assert found == {"codes": codes[0].tolist(), "size": [18, 27], "model_hash": model.source_hash}
    wanted = np.asarray(to_pil(model.decode(codes, (18, 27)))[0])
    body = {"codes": found["codes"], "size": found["size"]}
    assert np.array_equal(pixels(client.post("/v1/decode", params={"model": name}, json=body)), wanted)
    assert np.array_equal(pixels(client.post("/v1/reconstruct", params={"model": name}, content=file)), wanted)
    whole = pixels(client.post("/v1/decode", params={"model": name}, json={"codes": found["codes"]}))
    assert whole.shape == (20, 28, 3)


def test_it_says_what_it_is(client):
    assert client.get("/health").json()["status"] == "ok"
    assert [model["name"] for model in client.get("/v1/models").json()] == list(MODELS)
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/health", "/v1/models", "/v1/encode", "/v1/decode", "/v1/reconstruct"} <= paths.keys()
    assert client.get("/").text == "<p>the page" and client.get("/", params={"model": "residual"}).status_code == 404
    assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": "http://else.where"}).headers


def perform(client, command, folder):
    """A command of curl as a request; its answer. Files that it names lie in the folder."""
    words, headers, body, address = shlex.split(command), {}, None, ""
    assert words.pop(0) == "curl"
    while words:
        match words.pop(0):
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d" | "--data-binary":
                body = words.pop(0)
                body = (folder / body[1:]).read_bytes() if body.startswith("@") else body
            case "--output":
                words.pop(0)
            case ">":
                (folder / words.pop(0)).touch()
            case address:
                assert address.startswith("http://127.0.0.1:8000/")
    path = address.removeprefix("http://127.0.0.1:8000")
    return client.request("GET" if body is None else "POST", path, headers=headers, content=body)


def test_the_commands_of_the_documentation_are_answered(tmp_path):
    (tmp_path / "photo.png").write_bytes(png())
    (tmp_path / "codes.json").write_text('{"codes": [[1, 2], [3, 4]]}')
    manual = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    app = application(Served(MODELS), {"vq": "<p>the page"}, "correct-horse")
    with testclient.TestClient(app, base_url="http://127.0.0.1:8000") as client:
        page = client.get("/docs").text
        commands = [html.unescape(found) for found in re.findall("<pre>(.*?)</pre>", page)]
        assert len(commands) == sum(len(methods) for methods in app.openapi()["paths"].values())
        commands += re.findall(r"\$ (curl .*)", manual)
        for command in commands:
            command = command.replace("Bearer TOKEN", "Bearer correct-horse")
            if "Bearer" not in command:
                command = command.replace("curl ", "curl -H 'Authorization: Bearer correct-horse' ")
            answer = perform(client, command, tmp_path)
            assert answer.status_code == 200, (command, answer.text)
    rows = re.findall(r"^\| ([\d,]+) \| (.*) \|$", manual, re.MULTILINE)
    assert rows == [(f"{value:,.0f}", MEANINGS[name]) for name, value in asdict(Limits()).items()]
    assert not re.search(r'(src|href)="(?!/|data:)', page) and "@import" not in page and "url(" not in page
    assert all(html.escape(meaning) in page for meaning in MEANINGS.values())


def bomb():
    """A PNG of a few hundred bytes that claims 60,000 x 60,000 pixels."""
    data = bytearray(png())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    return bytes(data)


HOSTILE = {
    "empty": ("encode", b"", 422),
    "no image": ("encode", b"GIF89a but no more of it", 422),
    "cut off": ("encode", png()[:-40], 422),
    "a bomb": ("encode", bomb(), 422),
    "too many pixels": ("reconstruct", png(200, 200), 422),
    "too many bytes": ("encode", b"\0" * (LIMITS.upload_bytes + 1), 413),
    "a program": ("encode", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422),
    "a path": ("encode", b"/etc/passwd", 422),
    "no json": ("decode", b"{", 422),
    "a list": ("decode", b"[1]", 422),
    "no codes": ("decode", b"{}", 422),
    "ragged": ("decode", b'{"codes": [[1], [1, 2]]}', 422),
    "words": ("decode", b'{"codes": [["a"]]}', 422),
    "nested": ("decode", b'{"codes": ' + b"[" * 5000 + b"]" * 5000 + b"}", 422),
    "huge": ("decode", b'{"codes": [[1e400]]}', 422),
    "long": ("decode", b'{"codes": [[99999999999999999999999]]}', 422),
    "below": ("decode", b'{"codes": [[-1]]}', 422),
    "beyond": ("decode", b'{"codes": [[24]]}', 422),
    "no grid": ("decode", b'{"codes": [1, 2]}', 422),
    "nothing": ("decode", b'{"codes": [[]]}', 422),
    "long text": ("decode", b'{"codes": [[1]], "x": "' + b"y" * 20000 + b'"}', 422),
    "many lists": ("decode", b'{"codes": [' + b"[]," * 2500 + b"[]]}", 422),
    "a large grid": ("decode", json.dumps({"codes": [[1] * 200] * 60}).encode(), 422),
    "a larger size": ("decode", b'{"codes": [[1]], "size": [9, 9]}', 422),
    "a size of words": ("decode", b'{"codes": [[1]], "size": "ab"}', 422),
    "a size below": ("decode", b'{"codes": [[1]], "size": [-3, 2]}', 422),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_gets_one_line(client, name):
    act, body, status = HOSTILE[name]
    answer = client.post(f"/v1/{act}", content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"] and "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("name", ["../vq", "/etc", "none", "vq\0", "a" * 300])
def test_a_model_is_a_name_that_is_known_and_no_path(client, name):
    assert client.post("/v1/encode", params={"model": name}, content=png()).status_code in (404, 422)


def test_with_a_token_the_api_asks_for_it():
    client = testclient.TestClient(application(Served(MODELS), token="sesame"))
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer other"}).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert client.post("/v1/encode", content=png()).status_code == 401


def test_a_slow_body_is_given_up():
    async def drip():
        yield b"x"
        await asyncio.sleep(5)

    async def ask():
        from httpx2 import ASGITransport, AsyncClient

        transport = ASGITransport(application(Served(MODELS, limits=Limits(body_seconds=0.05))))
        async with AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post("/v1/encode", content=drip())

    assert asyncio.run(ask()).status_code == 408


def test_a_page_is_kept_for_its_model_and_found_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(page, "write", lambda model, folder, title: (folder / page.FILE).write_text(f"<p>{title}"))
    run = tmp_path / "run"
    MODELS["vq"].save_pretrained(run)
    assert serve_module._kept({"run": str(run), "other": "owner/name"}) == {"run": None, "other": None}
    assert serve_module._page(MODELS["vq"], run, "run") == "<p>run"
    assert serve_module._kept({"run": str(run), "again": str(run)}) == {"run": b"<p>run", "again": None}
    MODELS["residual"].save_pretrained(run)
    assert serve_module._kept({"run": str(run)}) == {"run": None}
    code = """import sys, smalti.apps.serve, smalti.server.connections, smalti.studio.kept
print([name for name in ("torch", "numpy", "PIL", "fastapi", "pydantic") if name in sys.modules])"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) == b"[]\n"


def test_the_verb_asks_for_a_token_beyond_this_machine_and_for_runs():
    with pytest.raises(SmaltiError, match="give --token"):
        serve(["somewhere"], host="0.0.0.0")
    with pytest.raises(SmaltiError, match="at least 8 characters"):
        serve(["somewhere"], host="0.0.0.0", token="short")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SmaltiError, match=f"cannot listen at 127.0.0.1:{port}: .* give another --port"):
            serve(["somewhere"], port=port)
    assert serve_module._address("::1", 80, "a/+ b") == "http://[::1]:80/#token=a/%2B%20b"
    with pytest.raises(SmaltiError, match="no run to serve"):
        serve([])
    with pytest.raises(SmaltiError, match="have one name"):
        serve(["a/run", "b/run"])
