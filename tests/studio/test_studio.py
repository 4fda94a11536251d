"""The studio in a real browser: every act ends in the codes and the pixels that Python has for it."""

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.apps.decode import decode
from smalti.apps.encodedfile import read_encoded
from smalti.errors import SmaltiError
from smalti.images.pixels import to_uint8
from smalti.images.preprocessing import Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.studio import page, runtime
from studio.browser import Browser

NETWORKS = {"kind": "residual", "stride": 8, "width": 16, "depth": 1, "patch": 4, "last_kernel": 3, "convolutions": 2}
MODELS = {
    "vq": (NETWORKS, {"kind": "vector_quantizer", "codebook_size": 64, "code_dim": 4}),
    "residual codes": (
        NETWORKS,
        {"kind": "residual_quantizer", "num_codebooks": 3, "codebook_size": 16, "code_dim": 4},
    ),
    "fixed size": (
        {"kind": "mlp", "image_size": 32, "hidden": (24,), "grid": (4, 4)},
        {"kind": "categorical", "codebook_size": 32, "code_dim": 4},
    ),
}
ERROR = 1  # of pixels in 255: two programs round a value near a half to either side


def model_of(name):
    networks, bottleneck = MODELS[name]
    torch.manual_seed(0)
    config = AutoencoderConfig(networks=networks, bottleneck=bottleneck, preprocessing=Preprocessing(image_size=32))
    model = Autoencoder(config)
    model(torch.rand(16, 3, 32, 32))  # where the codebook starts
    with torch.no_grad():
        for weights in model.decoder.parameters():  # so that codes are told apart by eye
            weights.mul_(1.5)
    return model.eval()


def photo(seed, height, width):
    """A smooth picture of many colours, uint8 (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module", params=MODELS)
def opened(request, tmp_path_factory, installed):
    """A model saved and opened again, its page in a browser, and two pictures on disk."""
    folder = tmp_path_factory.mktemp("studio")
    model_of(request.param).save_pretrained(folder / "run")
    model = Autoencoder.from_pretrained(folder / "run")
    page.write(model, folder, "a model")
    sizes = [(32, 32), (32, 32)] if model.networks.fixed_size else [(100, 150), (64, 72)]
    for index, (height, width) in enumerate(sizes):
        Image.fromarray(photo(index, height, width)).save(folder / f"photo{index}.png")
    browser = Browser(folder)
    browser.open(f"file://{folder / page.FILE}")
    browser.wait("document.body?.classList.contains('ready')")
    yield SimpleNamespace(browser=browser, model=model, folder=folder)
    browser.close()


@pytest.fixture
def studio(opened):
    """With the first picture open; afterwards no error on the console and nothing asked of anybody."""
    browser = opened.browser
    browser.value("studio.file = null")
    browser.choose("#file", opened.folder / "photo0.png")
    browser.wait("studio.file && studio.name === 'photo0'")
    browser.wait("!document.getElementById('status').textContent.startsWith('Reading')")
    settled(browser)
    yield opened
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "blob:", "data:"))] == []


def settled(browser):
    """Once nothing computes any more."""
    browser.value("new Promise(done => setTimeout(done, 30)).then(() => studio.model.queue)")
    browser.value("new Promise(done => setTimeout(done, 30)).then(() => studio.model.queue)")


def codes_in(browser, model, grid="grid"):
    found = browser.value(f"({{data: Array.from(studio.{grid}.data), h: studio.{grid}.h, w: studio.{grid}.w}})")
    shape = model.codes_bottleneck.grid_shape(found["h"], found["w"])
    return torch.tensor(found["data"]).view(1, *shape)


def pixels_in(browser):
    """Of the picture that is shown: uint8 (H, W, 3)."""
    address = browser.value(
        "(() => { const copy = document.createElement('canvas'), shown = studio.main.pixels;"
        " [copy.width, copy.height] = [shown.width, shown.height]; copy.getContext('2d').drawImage(shown, 0, 0);"
        " return copy.toDataURL(); })()"
    )
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def agree(browser, model, wanted):
    """The page's codes are those wanted, and its picture is that which Python decodes of them."""
    settled(browser)
    assert torch.equal(codes_in(browser, model), wanted)
    shown = pixels_in(browser)
    ours = to_uint8(model.decode(wanted, shown.shape[:2]))[0].numpy()
    assert np.abs(shown.astype(int) - ours.astype(int)).max() <= ERROR


def at(browser, x, y, view="main"):
    """The middle of a position, on the screen."""
    return tuple(browser.value(
        f"(() => {{ const v = studio.{view}, r = v.lines.getBoundingClientRect(), c = v.cell(r.width, r.height);"
        f" return [r.left + (({x}) + 0.4) * c.w, r.top + (({y}) + 0.4) * c.h]; }})()"
    ))  # fmt: skip


def test_a_picture_has_the_codes_and_the_pixels_of_python(studio):
    agree(studio.browser, studio.model, studio.model.encode(studio.folder / "photo0.png"))


def test_a_picture_is_dropped_on_the_page(studio):
    browser = studio.browser
    browser.drop(studio.folder / "photo1.png", *browser.middle("#main"))
    browser.wait("studio.name === 'photo1'")
    agree(browser, studio.model, studio.model.encode(studio.folder / "photo1.png"))


def test_a_click_on_a_near_code_changes_the_code_and_the_picture_and_undo_and_redo_go_back_and_forth(studio):
    browser, model = studio.browser, studio.model
    before = model.encode(studio.folder / "photo0.png")
    browser.click(*at(browser, 2, 1))
    settled(browser)
    shown = browser.value("[...document.querySelectorAll('.tile span')].map(span => Number(span.textContent))")
    vectors, code = model.codes_bottleneck.decode_each()[0], int(before.reshape(-1, *before.shape[-2:])[0, 1, 2])
    distances = (vectors - vectors[code]).square().sum(1)
    distances[code] = float("inf")
    assert shown == distances.argsort(stable=True)[:8].tolist()
    browser.click_on(".tile:nth-child(3)")
    after = before.clone()
    after.view(-1, *before.shape[-2:])[0, 1, 2] = shown[2]
    agree(browser, model, after)
    browser.click_on("#undo")
    agree(browser, model, before)
    browser.press("y", modifiers=2)
    agree(browser, model, after)


def test_the_keyboard_alone_changes_a_code(studio):
    browser, model = studio.browser, studio.model
    browser.click(*at(browser, 0, 0))
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    settled(browser)
    shown = browser.value("Number(document.querySelector('.tile span').textContent)")
    browser.press("1")
    wanted = model.encode(studio.folder / "photo0.png")
    wanted.view(-1, *wanted.shape[-2:])[0, 1, 1] = shown
    agree(browser, model, wanted)


def test_a_region_of_another_picture_is_dragged_onto_the_first(studio):
    browser, model = studio.browser, studio.model
    browser.choose("#second", studio.folder / "photo1.png")
    browser.wait("studio.otherGrid")
    settled(browser)
    other = model.encode(studio.folder / "photo1.png")
    assert torch.equal(codes_in(browser, model, "otherGrid"), other)
    browser.middle("#other")  # into view
    browser.drag(at(browser, 1, 1, "other"), at(browser, 2, 3, "other"))
    browser.drag(at(browser, 1, 1, "other"), at(browser, 0, 1))
    wanted = model.encode(studio.folder / "photo0.png")
    height = min(3, wanted.shape[-2] - 1)
    wanted[..., 1 : 1 + height, 0:2] = other[..., 1 : 1 + height, 1:3]
    agree(browser, model, wanted)


def test_copied_codes_are_json_and_come_back(studio):
    browser, model = studio.browser, studio.model
    before = model.encode(studio.folder / "photo0.png")
    browser.value(
        "document.addEventListener('copy', (event) => (window.copied = event.clipboardData.getData('text/plain')))"
    )
    browser.press("c", modifiers=2)
    text = json.loads(browser.value("window.copied"))
    assert torch.equal(torch.tensor(text["codes"])[None], before) and text["model_hash"] == model.source_hash
    text["codes"] = before.flip(-1)[0].tolist()
    browser.value(f"studio.pasted({json.dumps(json.dumps(text))})")
    agree(browser, model, before.flip(-1))
    for bad in ("{", "{}", json.dumps({**text, "codes": [[10**6]]}), json.dumps({**text, "model_hash": "0"})):
        browser.value(f"studio.pasted({json.dumps(bad)})")
        assert browser.value("document.getElementById('status').textContent").endswith((".", "do not."))
    agree(browser, model, before.flip(-1))


def test_what_is_saved_python_reads(studio):
    browser, model = studio.browser, studio.model
    for file in studio.browser.downloads.iterdir():
        file.unlink()
    browser.click_on("#npz")
    path = browser.downloaded("photo0.npz")
    file = read_encoded(path, model.source_hash)
    assert torch.equal(file.values[0][None], model.encode(studio.folder / "photo0.png"))
    decode(str(studio.folder / "run"), str(path), out=str(studio.folder / f"decoded-{path.stat().st_mtime_ns}"))
    browser.click_on("#png")
    with Image.open(browser.downloaded("photo0.png")) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels_in(browser))


# ------------------------------------------------------------------ without a browser


def test_a_token_comes_behind_the_address_and_leaves_it(studio):
    found = studio.browser.value("""(() => {
        history.replaceState(null, "", "#token=a%2Fb%2B");
        studio.server.constructor.keepToken();
        return [location.hash, studio.server.headers.Authorization, sessionStorage.removeItem("token")];
    })()""")
    assert found == ["", "Bearer a/b+", None]


def test_the_page_holds_all_its_files_and_no_address(monkeypatch):
    monkeypatch.setattr(page, "runtime", lambda: {page.SCRIPT: b"", page.WASM: b""})
    graphs = {page.onnx.ENCODER: b"", page.onnx.DECODER: b""}
    text = page.page({"title": "</script><b>", "vector_shape": [0, 0, 0]}, graphs, np.zeros((0, 0, 0)), b"")
    assert not any(mark in text for mark in ("/*style", "/*about", "/*scripts", "<!--")) and "</script><b>" not in text
    assert "http:" not in text and "https:" not in text
    rooms = [f"rooms/{name}.html" for name in page.ROOMS]
    for path in page.PAGE.rglob("*.*"):
        assert str(path.relative_to(page.PAGE)) in (*page.SCRIPTS, *page.STYLES, *rooms, "studio.html")
        assert len(path.read_text().splitlines()) < 400


def test_the_runtime_is_fetched_once_and_held_to_its_hash(tmp_path, monkeypatch):
    import hashlib
    import tarfile

    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SMALTI_ONNXRUNTIME_WEB", raising=False)
    file = tmp_path / "package.tgz"
    with tarfile.open(file, "w:gz") as archive:
        for name in runtime.HASHES:
            about = tarfile.TarInfo(f"package/dist/{name}")
            about.size = len(name)
            archive.addfile(about, io.BytesIO(name.encode()))
    with pytest.raises(SmaltiError, match="is not that of onnxruntime-web"):
        runtime.runtime(file.as_uri())
    monkeypatch.setattr(runtime, "HASHES", {name: hashlib.sha256(name.encode()).hexdigest() for name in runtime.HASHES})
    wanted = {name: name.encode() for name in runtime.HASHES}
    assert runtime.runtime(file.as_uri()) == wanted
    file.unlink()
    assert runtime.runtime(file.as_uri()) == wanted
    (runtime.cache() / page.WASM).write_bytes(b"other")
    with pytest.raises(SmaltiError, match="remove it, to fetch it again"):
        runtime.runtime(file.as_uri())
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "empty"))
    with pytest.raises(SmaltiError, match="cannot be fetched.*SMALTI_ONNXRUNTIME_WEB"):
        runtime.runtime(file.as_uri())
    monkeypatch.setenv("SMALTI_ONNXRUNTIME_WEB", str(tmp_path))
    with pytest.raises(SmaltiError, match="holds no ort"):
        runtime.runtime()
