"""A headless Chromium driven over its debugging pipe: nothing but the browser has to be installed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
ARGUMENTS += ("--no-first-run", "--disable-extensions", "--remote-debugging-pipe")
LAUNCH = (
    "import fcntl, os, sys; high = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]; "
    "[os.dup2(fd, to) for fd, to in zip(high, (3, 4))]; os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE = 120.0  # seconds for one answer, on a machine that does other things


class Browser:
    """One page in one browser (Chrome DevTools Protocol over file descriptors 3 and 4).

    Args:
        folder: for its profile and for what it downloads (``folder/downloads``).
    """

    def __init__(self, folder: Path):
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        command = [str(CHROMIUM), *ARGUMENTS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        # In the way stands a small program: a shell may only know files of one digit.
        start = [sys.executable, "-IS", "-c", LAUNCH, str(theirs_in), str(theirs_out), *command]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(start, pass_fds=(theirs_in, theirs_out), stdout=quiet, stderr=quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._sent, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        where = {"behavior": "allow", "downloadPath": str(self.downloads), "eventsEnabled": True}
        self.send("Browser.setDownloadBehavior", **where)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            read = os.read(self._from, 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result; events that come before are kept."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        """Wait until the browser has told an event."""
        while not any(e.get("method") == event for e in self.events):
            self.events.append(self._receive())

    def open(self, page: Path, width: int = 1400, dark: bool = False) -> None:
        """Load a page from a file; up to 500 px it is a phone with fingers."""
        phone = width < 500
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        self.wait_for("Page.loadEventFired")
        self.settle()

    def settle(self) -> None:
        """Until what was asked to be drawn is drawn."""
        self.js("await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def js(self, code: str) -> Any:
        """The value that code returns; it may await, and `$` and `$$` find elements."""
        body = (
            "const $ = (s, e = document) => e.querySelector(s), $$ = (s, e = document) => [...e.querySelectorAll(s)];"
            f"return (async () => {{ {code} }})();"
        )
        wrapped = f"(() => {{ {body} }})()"
        found = self.send("Runtime.evaluate", expression=wrapped, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def key(self, name: str) -> None:
        """Press and release a key."""
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        given = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
        self.send("Input.dispatchKeyEvent", type="keyDown", **given | ({"text": "\r"} if name == "Enter" else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **given)

    def middle(self, element: str) -> tuple[float, float]:
        """Where an element (an expression) is on the screen, after scrolling to it."""
        return tuple(
            self.js(
                f"const e = {element}; e.scrollIntoView({{ block: 'center' }}); const r = e.getBoundingClientRect();"
                "return [r.x + r.width / 2, r.y + r.height / 2]"
            )
        )

    def click(self, element: str) -> None:
        """Click on the middle of an element."""
        x, y = self.middle(element)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def tap(self, element: str) -> None:
        """Touch the middle of an element."""
        x, y = self.middle(element)
        self.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.js("await new Promise((done) => setTimeout(done, 400))")

    def downloaded(self, name: str) -> bytes:
        """What the page has saved under a name."""
        end = time.monotonic() + PATIENCE
        while not (self.downloads / name).is_file():
            assert time.monotonic() < end, f"{name} was not saved: {[p.name for p in self.downloads.iterdir()]}"
            time.sleep(0.05)
        content = (self.downloads / name).read_bytes()
        (self.downloads / name).unlink()
        return content

    def complaints(self) -> list[dict[str, Any]]:
        """Errors and warnings of the page."""
        self.settle()
        levels = ("error", "warning")
        return [
            e
            for e in self.events
            if e.get("method") == "Runtime.exceptionThrown"
            or (e.get("method") == "Log.entryAdded" and e["params"]["entry"]["level"] in levels)
            or (e.get("method") == "Runtime.consoleAPICalled" and e["params"]["type"] in levels)
        ]

    def picture(self, path: Path) -> None:
        """A PNG of what is on the screen."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
