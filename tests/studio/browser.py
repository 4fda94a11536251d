"""A page in Chromium without a window, driven by Playwright: real presses of the pointer and of keys."""

import contextlib
import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DEADLINE = 120.0  # seconds
MODIFIERS = {1: "Alt", 2: "Control", 4: "Meta", 8: "Shift"}


class _Program:
    """One Chromium for all pages that are open at a time: its start takes longer than most tests."""

    pages, driver, chromium = 0, None, None

    @classmethod
    def open(cls, **options: Any) -> Any:
        from playwright.sync_api import sync_playwright

        if cls.pages == 0:
            cls.driver = sync_playwright().start()
            cls.chromium = cls.driver.chromium.launch(executable_path=PROGRAM, args=QUIET)
        cls.pages += 1
        return cls.chromium.new_context(**options)

    @classmethod
    def close(cls, context: Any) -> None:
        context.close()
        cls.pages -= 1
        if cls.pages == 0:
            cls.chromium.close()
            cls.driver.stop()


class Browser:
    """One page, Playwright's `page`. `problems` are its errors on the console, `requests` all that it asked for."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900, dark: bool = False):
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.problems: list[str] = []
        self.requests: list[str] = []
        size = {"width": width, "height": height}
        self._context = _Program.open(viewport=size, color_scheme="dark" if dark else "light")
        self._context.on("request", lambda request: self.requests.append(request.url))
        self.page = self._context.new_page()
        self.page.set_default_timeout(1000 * DEADLINE)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("download", lambda file: file.save_as(self.downloads / file.suggested_filename))
        self._protocol = self._context.new_cdp_session(self.page)

    def close(self) -> None:
        """End the page, and the program with the last of them."""
        _Program.close(self._context)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning", "assert"):
            self.problems.append(message.text)

    def open(self, address: str) -> None:
        """Another page at this address, once it is loaded."""
        self.page.goto(address)

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """A command of Chromium's own protocol, for what Playwright has no word for."""
        return self._protocol.send(method, arguments)

    def value(self, expression: str) -> Any:
        """What JavaScript gives; a promise is waited for."""
        return self.page.evaluate(expression)

    def wait(self, condition: str) -> None:
        """Until JavaScript says so."""
        end = time.monotonic() + DEADLINE
        while not self.value(condition):
            assert time.monotonic() < end, f"{condition} did not come true; {self.problems}"
            self.page.wait_for_timeout(20)

    def point(self, kind: str, x: float, y: float) -> None:
        """A pointer event: mouseMoved, mousePressed, mouseReleased."""
        self.page.mouse.move(x, y)
        if kind != "mouseMoved":
            {"mousePressed": self.page.mouse.down, "mouseReleased": self.page.mouse.up}[kind]()

    def click(self, x: float, y: float) -> None:
        """Press and release."""
        self.page.mouse.click(x, y)

    def click_on(self, selector: str) -> None:
        """Press and release in the middle of an element, once it can be seen, stands still and nothing covers it."""
        self.page.click(selector)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move in a few steps, release."""
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=3)
        self.page.mouse.up()

    def drop(self, file: Path, x: float, y: float) -> None:
        """A file from elsewhere, let go over the page."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.ask("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def middle(self, selector: str) -> tuple[float, float]:
        """Of an element, scrolled into view."""
        box = f"document.querySelector({json.dumps(selector)})"
        x, y = self.value(
            f"(() => {{ const e = {box}; e.scrollIntoView({{block: 'nearest'}}); const r = e.getBoundingClientRect();"
            " return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        return x, y

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key; modifiers: 2 is control, 8 is shift."""
        held = [name for bit, name in MODIFIERS.items() if modifiers & bit]
        self.page.keyboard.press("+".join([*held, key]))

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input of the page."""
        self.page.set_input_files(selector, files)

    def downloaded(self, name: str) -> Path:
        """A file that the page saves, once it is there."""
        end = time.monotonic() + DEADLINE
        while not (self.downloads / name).exists():
            assert time.monotonic() < end, f"{name} was not saved; {[*self.downloads.iterdir()]}"
            self.page.wait_for_timeout(20)
        return self.downloads / name

    def picture(self, path: Path) -> None:
        """A screenshot, PNG."""
        self.page.screenshot(path=path)


@contextlib.contextmanager
def serving(app):
    """An application behind uvicorn, on a thread; its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{door.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
