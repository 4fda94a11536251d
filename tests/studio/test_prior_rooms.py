"""The rooms of priors in a real browser, asking a real server: what they end in are the codes that Python samples."""

import contextlib
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from server.models import TEXT, save_prior
from smalti.apps.serve import opened
from smalti.server.app import application
from smalti.studio import page
from studio.browser import Browser, serving
from studio.test_studio import at, codes_in, model_of, photo, settled


@pytest.fixture(scope="module")
def served(tmp_path_factory, installed):
    """A tokenizer of several codebooks and a prior with text, served to a page in a browser."""
    pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("rooms")
    model_of("residual codes").save_pretrained(folder / "run")
    save_prior(folder / "prior", folder / "run", text=TEXT, condition_dropout=0.1)
    own, _ = opened([str(folder / "prior")])
    page.write(own.tokenizers["run"], folder, "run")
    Image.fromarray(photo(0, 100, 150)).save(folder / "photo.png")
    app = application(own, {"run": (folder / page.FILE).read_text(encoding="utf-8")})
    with serving(app) as address, contextlib.closing(Browser(folder)) as browser:
        browser.open(address)
        browser.wait("document.body?.classList.contains('ready')")
        yield SimpleNamespace(browser=browser, own=own.priors["prior"], folder=folder, address=address)


@pytest.fixture
def room(served):
    """A picture of the prior's grid is open; afterwards no error on the console and nothing asked of anybody else."""
    browser = served.browser
    browser.value("studio.file = null")
    browser.choose("#file", served.folder / "photo.png")
    browser.wait("studio.file && studio.grid.w === 19")
    settled(browser)
    browser.click_on("#door-complete")
    browser.click_on("#complete-open")
    browser.wait("studio.grid.w === 4")
    settled(browser)
    assert browser.value("document.getElementById('complete-fit').hidden")
    yield served
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith((served.address, "blob:", "data:"))] == []


def codes_of(room):
    return codes_in(room.browser, room.own.tokenizer.model)


def typed(browser, selector, text):
    """Instead of what stands there."""
    browser.click_on(selector)
    browser.value(f"document.querySelector('{selector}').select()")
    for letter in text:
        browser.press(letter)
    browser.press("Tab")


def text_of(browser, name):
    return browser.value(f"document.getElementById('{name}').textContent")


def over(browser, x, y):
    """The middle of a position of the view that is brushed, on the screen."""
    browser.value("document.getElementById('complete-view').scrollIntoView({block: 'center'})")
    left, top, width, height = browser.value(
        "(() => { const r = document.querySelector('#complete-view .lines').getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height]; })()"
    )
    return left + (x + 0.5) * width / 4, top + (y + 0.5) * height / 4


def test_what_is_brushed_away_is_filled_as_python_fills_it(room):
    browser, own = room.browser, room.own
    before = codes_of(room)
    browser.click_on("#complete-none")
    assert browser.value("document.getElementById('complete-fill').disabled")
    browser.value("document.getElementById('complete-brush').value = 1")
    browser.value("document.getElementById('complete-brush').dispatchEvent(new Event('change'))")
    browser.drag(over(browser, 0, 1), over(browser, 3, 1))
    browser.click(*over(browser, 1, 2))
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    browser.press(" ")  # (2, 3)
    browser.press("ArrowLeft")
    browser.press(" ")
    browser.press(" ", modifiers=8)  # (1, 3) is back
    keep = torch.ones(4, 4, dtype=torch.bool)
    keep[1], keep[2, 1], keep[3, 2] = False, False, False
    typed(browser, "#complete-prompt [name=text]", "red heart")
    typed(browser, "#complete-prompt [name=seed]", "5")
    browser.click_on("#complete-fill")
    browser.wait("document.querySelectorAll('#complete-variants img').length === 8")
    known = own.tokenizer.laid(before)[0]
    mask = keep.repeat_interleave(own.tokenizer.beside, dim=1)
    wanted = own.tokenizer.stacked(own.sample("red heart", 8, seed=5, known=known, mask=mask))
    browser.click_on("#complete-variants button:nth-child(3)")
    settled(browser)
    assert torch.equal(codes_of(room), wanted[2:3]) and not torch.equal(wanted[2:3], before)
    browser.click_on("#complete-variants button:nth-child(8)")
    settled(browser)
    assert torch.equal(codes_of(room), wanted[7:8])
    assert browser.value("document.querySelector('#complete-variants [aria-pressed=true]').dataset.index") == "8"
    browser.press("z", modifiers=2)
    browser.press("z", modifiers=2)
    settled(browser)
    assert torch.equal(codes_of(room), before)


def test_the_map_of_surprise_has_the_bits_of_python(room):
    browser, own = room.browser, room.own
    browser.value("document.querySelector('#complete-prompt [name=text]').value = ''")
    browser.click_on("#complete-surprise")
    browser.wait("!document.getElementById('complete-bits').hidden")
    grid = own.tokenizer.laid(codes_of(room))
    nats = own.model.prior.nll_of_codes(grid, own.condition([]))
    bits = own.tokenizer.stacked(nats)[0].sum(0) / torch.tensor(2.0).log()
    total, in_bytes = re.fullmatch(r"([\d.]+) bits = (\d+) bytes", text_of(browser, "complete-total")).groups()
    assert float(total) == pytest.approx(bits.sum().item(), abs=0.06) and int(in_bytes) == -(-float(total) // 8)
    browser.point("mouseMoved", *over(browser, 2, 1))
    shown = re.fullmatch(r"row 2, column 3: ([\d.]+) bits", text_of(browser, "complete-here"))
    assert float(shown[1]) == pytest.approx(bits[1, 2].item(), abs=0.06)
    browser.click_on("#complete-surprise")
    browser.wait("document.getElementById('complete-bits').hidden")


def test_pictures_of_a_text_are_those_of_python_and_open_in_the_editor(room):
    browser, own = room.browser, room.own
    browser.click_on("#door-text")
    typed(browser, "#text-prompt [name=text]", "blue circle")
    typed(browser, "#text-prompt [name=seed]", "11")
    browser.press(" ")  # on the dice, which the keyboard has come to
    browser.wait("document.querySelector('#text-prompt [name=seed]').value !== '11'")
    typed(browser, "#text-prompt [name=seed]", "11")
    browser.click_on("#text-sample")
    browser.wait("document.querySelectorAll('#text-results img').length === 4")
    assert browser.value("[...document.querySelectorAll('#text-results figcaption')].map(own => own.textContent)") == [
        f"seed {seed}" for seed in range(11, 15)
    ]
    browser.click_on("#text-results figure:nth-child(3) button")
    browser.wait("studio.rooms.now === 'edit'")
    settled(browser)
    wanted = own.tokenizer.stacked(own.sample("blue circle", 1, seed=13, guidance=2.0))
    assert torch.equal(codes_of(room), wanted)
    browser.click(*at(browser, 0, 0))
    assert browser.value("document.querySelector('#text-prompt [name=text]').value") == "blue circle"


def test_a_wrong_text_is_a_sentence(room):
    browser = room.browser
    browser.click_on("#door-text")
    typed(browser, "#text-prompt [name=text]", "abcdefghijklmnopqrstuvwxyz")
    browser.click_on("#text-sample")
    browser.wait("document.getElementById('status').textContent.includes('at most 12 fit')")
    assert "abc" not in text_of(browser, "text-results")
    browser.problems[:] = [problem for problem in browser.problems if "422" not in problem]
