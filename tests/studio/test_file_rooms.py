"""The rooms of files, of the codebook and of comparison, in a real browser: they show and save what Python has."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.apps.export import export
from smalti.codec import Codec, rivals
from smalti.errors import SmaltiError
from smalti.images.pixels import to_uint8
from smalti.images.reading import read_image
from smalti.models.autoencoder import Autoencoder
from smalti.studio import page
from studio.browser import Browser
from studio.test_studio import ERROR, agree, at, codes_in, model_of, settled


def opened(served_files, tmp_path, address):
    browser = Browser(tmp_path)
    browser.open(address)
    browser.wait("document.body?.classList.contains('ready')")
    browser.choose("#file", served_files.folder / "photo.png")
    browser.wait("studio.name === 'photo'")
    settled(browser)
    return browser


@pytest.fixture
def browser(served_files, tmp_path):
    """With a picture open; afterwards no error on the console, and nothing asked of anybody but the server."""
    browser = opened(served_files, tmp_path, served_files.address)
    yield browser
    assert browser.problems == []
    assert {url for url in browser.requests if not url.startswith((served_files.address, "blob:", "data:"))} == set()
    browser.close()


def enter(browser, name):
    browser.click_on(f"#door-{name}")
    settled(browser)


def text(browser, name):
    return browser.value(f"document.getElementById('{name}').textContent")


def canvas(browser, selector):
    """The pixels of a canvas, uint8 (H, W, 3)."""
    address = browser.value(f"document.querySelector('{selector}').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def box_of(browser, selector):
    """Left, top and width of an element, on the screen."""
    return browser.value(
        f"(() => {{ const r = document.querySelector('{selector}').getBoundingClientRect();"
        " return [r.left, r.top, r.width]; })()"
    )


def psnr(one, other):
    return 10 * np.log10(255**2 / ((one.astype(float) - other.astype(float)) ** 2).mean())


def test_the_file_of_every_coder_has_the_bytes_that_are_shown_and_those_of_python(browser, served_files):
    model, original = served_files.models["vq"], read_image(served_files.folder / "photo.png")
    enter(browser, "compress")
    for coder in ("adaptive", "fixed"):
        browser.click_on(f"input[value={coder}]")
        browser.wait(
            f"document.querySelector('#formats b + span') && studio.compress.found?.smalti.coder === '{coder}'"
        )
        ours = Codec(model, coder=coder).compress(original)
        assert text(browser, "compress-save") == f"Save .smalti, {len(ours):,} bytes"
        browser.click_on("#compress-save")
        file = browser.downloaded("photo.smalti")
        assert file.read_bytes() == ours
        file.unlink()
    shown = browser.value("[...document.querySelectorAll('#formats b')].map(name => name.textContent)")
    assert shown == ["original", ".smalti, fixed length", *rivals.at_hand()]
    for index, name in enumerate(rivals.at_hand()):
        _, data = rivals.at_most(Image.fromarray(original), name, len(ours))
        with Image.open(io.BytesIO(data)) as image:
            found = canvas(browser, f"#formats figure:nth-child({index + 3}) canvas")
            assert np.array_equal(found, np.asarray(image.convert("RGB")))
        words = browser.value(f"document.querySelector('#formats figure:nth-child({index + 3})').textContent")
        assert f"{len(data):,} bytes" in words and f"{psnr(found, original):.2f} dB" in words
    x, y = browser.middle("#formats figure:nth-child(1) .view")
    browser.point("mouseMoved", x, y)
    assert browser.value(
        "new Set([...document.querySelectorAll('#formats canvas')].map(c => getComputedStyle(c).transform)).size"
    ) == 1  # fmt: skip
    assert browser.value("getComputedStyle(document.querySelector('#formats canvas')).transform") != "none"


def test_codes_that_were_changed_are_saved_as_a_file_and_come_back_from_it(browser, served_files):
    model = served_files.models["vq"]
    browser.click(*at(browser, 2, 1))
    settled(browser)
    browser.press("3")
    settled(browser)
    codes = codes_in(browser, model)
    assert not torch.equal(codes, model.encode(served_files.folder / "photo.png"))
    browser.click_on("#smalti")
    file = browser.downloaded("photo.smalti")
    codec = Codec(model)
    buffer = io.BytesIO()
    codec.write(buffer, [codec.coded(codes[0], (100, 150))])
    assert file.read_bytes() == buffer.getvalue()
    browser.choose("#file", served_files.folder / "photo.png")
    browser.wait("studio.history.states.length === 1")
    browser.drop(file, *browser.middle("#main"))
    browser.wait("studio.file.name === 'photo.smalti'")
    agree(browser, model, codes)


def rooms_without_a_server(browser, model, folder, counts):
    """What the codebook and the comparison show is what Python has, and both are worked by hand and by keys."""
    codes, original = model.encode(folder / "photo.png"), read_image(folder / "photo.png")
    here = to_uint8(model.decode(codes, original.shape[:2]))[0].numpy()
    own = model.codes_bottleneck.histogram(codes)[0].numpy()

    enter(browser, "codebook")
    for order, uses in (("in the data", counts[0].numpy()), ("in this picture", own)):
        browser.value(
            "(() => { const order = document.getElementById('codebook-order'); "
            f"order.value = '{order}'; order.dispatchEvent(new Event('change')); }})()"
        )
        assert browser.value("[...studio.codebook.order]") == np.argsort(-uses, kind="stable").tolist()
        assert text(browser, "codebook-count") == f"{(uses > 0).sum()} of 64 codes occur {order}"
    ranks = np.argsort(-own, kind="stable").tolist()
    most = ranks[0]
    left, top, _ = box_of(browser, "#codebook-tiles")
    browser.click(left + 30, top + 30)  # the first tile
    settled(browser)
    assert text(browser, "codebook-code").startswith(f"code {most}: {own[most]} times in this picture")
    place = "at % studio.grid.w, Math.floor(at / studio.grid.w)"
    marked = f"Array.from(studio.grid.data, (_, at) => studio.codebook.view.marked({place}))"
    assert browser.value(marked) == (codes == most).flatten().tolist()
    looks = to_uint8(model.decode(torch.full((1, 3, 3), most)))[0, 8:16, 8:16].numpy()
    assert np.abs(canvas(browser, "#codebook-tile").astype(int) - looks.astype(int)).max() <= ERROR
    browser.middle("#codebook-picture")  # into view
    browser.click(*at(browser, 1, 2, "codebook.view"))
    settled(browser)
    there = int(codes[0, 2, 1])
    assert text(browser, "codebook-code").startswith(f"code {there}:")
    browser.value("studio.codebook.frame.focus()")
    browser.press("ArrowRight")
    chosen = ranks[ranks.index(there) + 1]
    browser.press("Enter")
    settled(browser)
    changed = codes.clone()
    changed[0, 2, 1] = chosen
    assert torch.equal(codes_in(browser, model), changed)
    browser.press("z", modifiers=2)
    settled(browser)
    assert torch.equal(codes_in(browser, model), codes)

    enter(browser, "compare")
    assert np.array_equal(canvas(browser, "#compare-under"), original)
    assert np.abs(canvas(browser, "#compare-over").astype(int) - here.astype(int)).max() <= ERROR
    assert f"{psnr(canvas(browser, '#compare-over'), original):.2f} dB" in text(browser, "compare-right-about")
    left, top, width = box_of(browser, "#wipe")
    browser.drag((left + width / 2, top + 40), (left + width / 4, top + 40))
    edge = "document.getElementById('wipe').getAttribute('aria-valuenow')"
    assert browser.value(edge) == "25"
    browser.press("ArrowRight")
    browser.press("ArrowRight", modifiers=8)
    assert browser.value(edge) == "36"
    assert "36" in browser.value("getComputedStyle(document.getElementById('compare-over')).clipPath")
    return original


def test_with_a_server_the_codebook_and_the_comparison_of_two_models(browser, served_files):
    original = rooms_without_a_server(browser, served_files.models["vq"], served_files.folder, served_files.counts)
    browser.wait("document.querySelectorAll('#through button').length === 2")
    browser.wait("!!document.querySelector('#through button:nth-child(2) span:last-child').textContent")
    browser.click_on("#through button:nth-child(2)")
    browser.wait("document.getElementById('compare-right-about').textContent.includes('residual codes')")
    other = to_uint8(served_files.models["residual codes"].reconstruct(served_files.folder / "photo.png"))[0].numpy()
    assert np.array_equal(canvas(browser, "#compare-over"), other)
    assert f"{psnr(other, original):.2f} dB" in text(browser, "compare-right-about")


def test_from_disk_there_are_the_rooms_that_need_no_server_and_nobody_is_asked(served_files, tmp_path):
    browser = opened(served_files, tmp_path, f"file://{served_files.folder / page.FILE}")
    try:
        doors = browser.value("[...document.querySelectorAll('#doors button')].map(door => door.textContent)")
        assert doors == ["Edit", "Codebook", "Compare"] and browser.value("document.getElementById('smalti').hidden")
        rooms_without_a_server(browser, served_files.models["vq"], served_files.folder, served_files.counts)
        assert browser.problems == []
        assert [url for url in browser.requests if not url.startswith(("file:", "blob:", "data:"))] == []
    finally:
        browser.close()


# ------------------------------------------------------------------ without a browser


def test_the_page_is_given_how_often_each_code_occurs_in_the_data(tmp_path, image_folder, monkeypatch):
    model_of("residual codes").save_pretrained(tmp_path / "run")
    given = {}
    monkeypatch.setattr(page, "write", lambda model, folder, **more: given.update(more) or {})
    export(str(tmp_path / "run"), format="html", out=str(tmp_path / "out"), data=str(image_folder))
    model = Autoencoder.from_pretrained(tmp_path / "run")
    codes = model.encode(sorted(image_folder.rglob("*.png"))).numpy()
    wanted = [np.bincount(codes[:, layer].ravel(), minlength=16).tolist() for layer in range(3)]
    assert given["counts"].tolist() == wanted
    with pytest.raises(SmaltiError, match="no effect with --format onnx"):
        export(str(tmp_path / "run"), format="onnx", out=str(tmp_path / "out"), data=str(image_folder))
    with pytest.raises(SmaltiError, match="no effect without --data"):
        export(str(tmp_path / "run"), format="html", out=str(tmp_path / "out"), split="test")
