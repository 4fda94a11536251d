"""Chromium without a window, driven by its own protocol over two pipes: real presses of the pointer and of keys."""

import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
DEADLINE = 120.0  # seconds


class Browser:
    """One page. `problems` are its errors on the console, `requests` all that it asked for."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900, dark: bool = False):
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        for number in (to_child, from_child):
            os.set_inheritable(number, True)
        shell = f'exec "$0" "$@" 3<&{to_child} 4>&{from_child}'
        options = [*QUIET, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, PROGRAM, *options, "about:blank"], pass_fds=(to_child, from_child),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_child)
        os.close(from_child)
        self._numbers, self._rest, self._events = itertools.count(1), b"", []
        self.problems: list[str] = []
        self.requests: list[str] = []
        page = next(one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self._ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.ask(f"{domain}.enable")
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def close(self) -> None:
        """End the program."""
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """A command to the page."""
        return self._ask(method, self._session, **arguments)

    def _ask(self, method: str, session: str | None = None, **arguments: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": arguments} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.problems.append(about["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif event["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.problems.append(about["entry"]["text"])
        elif event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.problems.append(str(about["args"]))
        elif event["method"] == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def value(self, expression: str) -> Any:
        """What JavaScript gives, as JSON can hold it; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until JavaScript says so."""
        end = time.monotonic() + DEADLINE
        while not self.value(condition):
            assert time.monotonic() < end, f"{condition} did not come true; {self.problems}"
            time.sleep(0.02)

    def point(self, kind: str, x: float, y: float, buttons: int = 1) -> None:
        """A pointer event: mousePressed, mouseMoved, mouseReleased."""
        button = "none" if kind == "mouseMoved" else "left"
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1)

    def click(self, x: float, y: float) -> None:
        """Press and release."""
        self.point("mouseMoved", x, y, 0)
        self.point("mousePressed", x, y)
        self.point("mouseReleased", x, y, 0)

    def click_on(self, selector: str) -> None:
        """Press and release in the middle of an element."""
        self.click(*self.middle(selector))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move in a few steps, release."""
        self.point("mouseMoved", *start, 0)
        self.point("mousePressed", *start)
        for share in (0.3, 0.7, 1.0):
            self.point("mouseMoved", *(a + share * (b - a) for a, b in zip(start, end, strict=True)))
        self.point("mouseReleased", *end, 0)

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
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Tab": 9}
        about = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        commands = {"c": ["copy"], "v": ["paste"]}.get(key, []) if modifiers & 2 else []
        text = {} if modifiers & 2 or len(key) > 1 else {"text": key}
        self.ask("Input.dispatchKeyEvent", type="keyDown", commands=commands, **about, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input of the page."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def downloaded(self, name: str) -> Path:
        """A file that the page saves, once it is there."""
        end = time.monotonic() + DEADLINE
        while not (self.downloads / name).exists():
            assert time.monotonic() < end, f"{name} was not saved; {[*self.downloads.iterdir()]}"
            self.value("0")
            time.sleep(0.02)
        return self.downloads / name

    def picture(self, path: Path) -> None:
        """A screenshot, PNG."""
        import base64

        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
