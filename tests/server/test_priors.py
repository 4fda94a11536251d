"""What the API samples, completes and counts is what the models do in Python; whatever is wrong gets one line."""

import asyncio
import base64
import io
import json
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from server.models import TEXT, TRANSFORMER, save_prior
from server.test_server import model_of
from smalti.apps.serve import opened
from smalti.errors import SmaltiError
from smalti.generate.generator import Generator
from smalti.images.reading import to_pil
from smalti.priors.code_model import CodeModel
from smalti.priors.config import PixelLevels, PriorConfig
from smalti.server.app import application
from smalti.server.limits import Limits
from smalti.server.served import Served

testclient = pytest.importorskip("fastapi.testclient")

LIMITS = Limits(upload_bytes=1 << 16, pixels=9 * 16 * 16, logits=1 << 11)
PRIORS = {
    "text": ("vq", {"text": TEXT, "condition_dropout": 0.1}),
    "labels": ("residual", {"label_kind": "class", "labels": ("disc", "circle"), "condition_dropout": 0.1}),
    "always": ("vq", {"labels": ("disc",)}),
    "masked": ("vq", {"prior": {**TRANSFORMER, "kind": "maskgit"}}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for name in ("vq", "residual"):
        model_of(name).save_pretrained(folder / name)
    for name, (tokenizer, options) in PRIORS.items():
        save_prior(folder / name, folder / tokenizer, **options)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    served, _ = opened([str(folder / name) for name in PRIORS])
    served.limits = LIMITS
    return served


@pytest.fixture(scope="module")
def client(served):
    with testclient.TestClient(application(served)) as client:
        yield client


def test_the_tokenizers_of_priors_are_served_once_each(folder, served, client):
    assert list(served.tokenizers) == ["vq", "residual"] and list(served.priors) == list(PRIORS)
    assert served.priors["text"].tokenizer.model is served.priors["masked"].tokenizer.model is served.tokenizers["vq"]
    named, _ = opened([str(folder / "text"), str(folder / "vq")])
    assert list(named.tokenizers) == ["vq"] and named.priors["text"].tokenizer.model is named.tokenizers["vq"]
    text = served.priors["text"].model
    listed = {entry["name"]: entry for entry in client.get("/v1/models").json()}
    assert {name: entry["kind"] for name, entry in listed.items() if entry["kind"] != "prior"} == {
        "vq": "tokenizer",
        "residual": "tokenizer",
    }
    assert listed["text"] == {
        "kind": "prior", "name": "text", "model_hash": text.source_hash, "tokenizer_hash": text.config.tokenizer_hash,
        "grid": [4, 4], "text": True, "labels": [], "guidance": True, "completes": True, "surprise": True,
    }  # fmt: skip
    assert listed["labels"]["grid"] == [4, 4] and listed["labels"]["labels"] == ["disc", "circle"]
    assert not listed["always"]["guidance"] and not listed["masked"]["surprise"]


def test_packed_tokenizers_of_one_name_are_told_apart_and_pixels_have_none(folder, tmp_path):
    for name in ("text", "labels"):
        CodeModel.from_pretrained(folder / name).save_complete(tmp_path / name)
    packed, _ = opened([str(tmp_path / "text"), str(tmp_path / "labels")])
    assert list(packed.tokenizers) == ["tokenizer", "labels-tokenizer"]
    pixels = PixelLevels(image_size=4, channels=1, levels=2)
    CodeModel(PriorConfig(prior={"kind": "uniform"}, **pixels.codes)).save_pretrained(tmp_path / "pixels")
    with pytest.raises(SmaltiError, match="is a prior of pixels"):
        opened([str(tmp_path / "pixels")])


def lines(answer):
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson", answer.text
    *told, last = map(json.loads, answer.text.splitlines())
    assert all(line["progress"] <= line["of"] for line in told)
    assert [line["progress"] for line in told] == sorted({line["progress"] for line in told})
    return last


def agree(last, own: Generator, codes):
    """The last line holds these codes of a prior, as its tokenizer has them, and their images."""
    found = torch.tensor(last["codes"])
    assert torch.equal(own.tokenizer.laid(found), codes)
    wanted = to_pil(own.tokenizer.model.decode(found))
    for file, picture in zip(last["images"], wanted, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(file)))), np.asarray(picture))


SAMPLES = {
    "text": ({"text": "red heart", "num": 3, "seed": 4, "guidance": 2.0, "temperature": 0.9}, ("red heart", 3)),
    "labels": ({"label": "circle", "num": 2, "seed": 1, "top_k": 3, "top_p": 0.8}, ("circle", 2)),
    "masked": ({"num": 2, "seed": 9, "rounds": 3}, (None, 2)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_and_completions_are_those_of_python(client, served, name):
    body, (prompt, num) = SAMPLES[name]
    own, options = served.priors[name], {key: body[key] for key in body.keys() - {"text", "label", "num", "rounds"}}
    options["steps"] = body.get("rounds")
    last = lines(client.post("/v1/sample", params={"model": name}, json=body))
    agree(last, own, own.sample(prompt, num, **options))
    codes, keep = torch.tensor(last["codes"])[0], torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    more = {"codes": codes.tolist(), "keep": keep.tolist(), **body}
    found = lines(client.post("/v1/complete", params={"model": name}, json=more))
    mask = keep.repeat_interleave(own.tokenizer.beside, dim=1)
    agree(found, own, own.sample(prompt, num, known=own.tokenizer.laid(codes[None])[0], mask=mask, **options))
    assert all(torch.equal(variant[..., keep], codes[..., keep]) for variant in torch.tensor(found["codes"]))


@pytest.mark.parametrize("name", ["text", "labels"])
def test_surprise_sums_to_what_evaluation_counts(client, served, name):
    own, prompt = served.priors[name], SAMPLES[name][1][0]
    grid = own.sample(prompt, 1, seed=3)
    codes = own.tokenizer.stacked(grid)[0]
    key = "text" if name == "text" else "label"
    for given in ([prompt], []):
        nats = own.model.prior.nll(grid, own.condition(given)).item()
        body = {"codes": codes.tolist(), **dict.fromkeys([key] if given else [], prompt)}
        found = client.post("/v1/surprise", params={"model": name}, json=body).json()
        assert np.shape(found["bits"]) == tuple(codes.shape) and np.min(found["bits"]) >= 0
        assert found["total"] == pytest.approx(np.sum(found["bits"])) == pytest.approx(nats / np.log(2), rel=1e-5)


GRID, KEEP = [[0] * 4] * 4, [[True] * 4] * 4
HOSTILE = {
    "no json": ("sample", "text", b"{", "no JSON"),
    "nested": ("sample", "text", b"[" * 5000, "no JSON"),
    "a list": ("sample", "text", [1], "expected an object"),
    "an unknown key": ("sample", "text", {"nun": 3}, "did you mean 'num'"),
    "no images": ("sample", "text", {"num": 0}, "num: must be"),
    "too many": ("sample", "masked", {"num": 10}, "num: 10 images have more than the"),
    "very many": ("sample", "labels", {"num": 1 << 40}, "num: "),
    "too many logits": ("sample", "text", {"num": 6}, "num: 6 images have 6 x 384 logits"),
    "half an image": ("sample", "text", {"num": 1.5}, "num: expected int"),
    "a seed": ("sample", "text", {"seed": 1 << 70}, "seed: must be"),
    "a word": ("sample", "text", {"temperature": "hot"}, "temperature: expected float"),
    "below zero": ("sample", "text", {"temperature": -1}, "temperature: must be at least 0, not -1"),
    "infinite": ("sample", "text", b'{"temperature": Infinity}', "temperature: must be"),
    "no number": ("sample", "text", b'{"temperature": NaN}', "temperature: expected float"),
    "guided by nothing": ("sample", "text", {"guidance": 2}, "no effect without a prompt"),
    "too guided": ("sample", "text", {"text": "red", "guidance": 1e9}, "guidance: must be"),
    "no text": ("sample", "text", {"text": " "}, "the text is empty"),
    "a long text": ("sample", "text", {"text": "word " * 999}, "at most 12 fit"),
    "a label for text": ("sample", "text", {"label": "disc"}, "takes no label; give a text"),
    "a text for labels": ("sample", "labels", {"text": "disc"}, "takes no text; give a label"),
    "an unknown label": ("sample", "labels", {"label": "../disc"}, "unknown class"),
    "a label that is missing": ("sample", "always", {}, "needs a prompt"),
    "rounds": ("sample", "text", {"rounds": 3}, "is for a masked prior"),
    "nothing to complete": ("complete", "text", {}, "the key 'codes' is missing"),
    "ragged": ("complete", "text", {"codes": [[1], [1, 2]], "keep": KEEP}, "codes: expected whole numbers"),
    "halves": ("complete", "text", {"codes": [[0.5] * 4] * 4, "keep": KEEP}, "codes: expected whole numbers"),
    "beyond": ("complete", "text", {"codes": [[24] * 4] * 4, "keep": KEEP}, r"codes must lie in \[0, 24\)"),
    "another size": (
        "complete",
        "text",
        {"codes": [[0] * 5] * 4, "keep": KEEP},
        "codes: the grid is 4 x 5; this prior",
    ),
    "one codebook": (
        "complete",
        "labels",
        {"codes": GRID, "keep": KEEP},
        "codes: the grid is 4 x 4; this prior has 2 x",
    ),
    "another mask": ("complete", "text", {"codes": GRID, "keep": [[True]]}, "keep: the grid is 1 x 1; this prior"),
    "a mask of words": ("complete", "text", {"codes": GRID, "keep": [["a"]]}, "keep.0.0: expected bool"),
    "a mask of numbers": ("complete", "text", {"codes": GRID, "keep": [[1]]}, "keep.0.0: expected bool"),
    "no order": ("surprise", "masked", {"codes": GRID}, "has no order of positions"),
    "words": ("surprise", "text", {"codes": [["a"]]}, "codes: expected whole numbers"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_gets_one_line(client, name):
    import re

    act, model, body, words = HOSTILE[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(f"/v1/{act}", params={"model": model}, content=content)
    detail = answer.json()["detail"]
    assert answer.status_code == 422 and re.search(words, detail) and "\n" not in detail, detail


def test_a_model_is_a_prior_that_is_known(client):
    assert client.post("/v1/sample", params={"model": "vq"}, json={}).status_code == 404
    assert client.post("/v1/sample", content=b"\0" * (LIMITS.upload_bytes + 1)).status_code == 413


# ------------------------------------------------------------------ long work


class Long:
    """A generator that would take for ever, and notes how long it was let."""

    def __init__(self, model, fails_at=None):
        self.model, self.tokenizer, self.steps, self.ended = model.model, model.tokenizer, 0, threading.Event()
        self.fails_at, self.prompt = fails_at, model.prompt

    def sample(self, *_, progress, **__):
        try:
            for self.steps in range(1, 10_000):
                time.sleep(0.002)
                if self.steps == self.fails_at:
                    raise SmaltiError("this went wrong")
                progress(self.steps, 10_000)
        finally:
            self.ended.set()


async def asked(app, stays: int):
    """What a client hears that goes away after so many parts of the answer."""
    heard, gone = [], asyncio.Event()
    parts = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive():
        if parts:
            return parts.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        heard.append(message)
        if len(heard) > stays:
            gone.set()

    if stays < 0:
        asyncio.get_running_loop().call_later(0.05, gone.set)
    scope = {
        "type": "http", "method": "POST", "path": "/v1/sample", "raw_path": b"/v1/sample", "query_string": b"",
        "headers": [], "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.3"}, "scheme": "http",
        "server": ("here", 80), "client": ("there", 1), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return heard


@pytest.mark.parametrize("stays", [3, -1])
def test_a_client_that_goes_away_ends_the_work(served, stays):
    own = Long(served.priors["text"])
    waiting = threading.Event()
    work = Served({}, {"text": own})
    if stays < 0:  # it goes while another request computes
        work.turns.thread.submit(waiting.wait)
    heard = asyncio.run(asked(application(work), stays))
    waiting.set()
    work.turns.thread.shutdown()  # once all that was asked for has ended
    if stays < 0:
        assert own.steps == 0
    else:
        assert own.ended.is_set() and own.steps < 1000
        assert heard[0]["status"] == 200 and json.loads(heard[1]["body"]).keys() == {"progress", "of"}
    assert work.turns.count == 0


@pytest.mark.parametrize(("fails_at", "seconds", "words"), [(200, 9, "this went wrong"), (None, 0.3, "longer than")])
def test_an_error_after_the_first_line_is_the_last_line(served, fails_at, seconds, words):
    own = Long(served.priors["text"], fails_at)
    with testclient.TestClient(application(Served({}, {"text": own}, Limits(work_seconds=seconds)))) as client:
        assert words in lines(client.post("/v1/sample", json={}))["error"]
