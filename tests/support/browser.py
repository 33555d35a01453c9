"""A headless Chromium, spoken to by the DevTools protocol over pipes: no library, no port, no network."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
"""The browser's path; None if there is none."""

_SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


class Browser:
    """One page in a browser; leave it by `with`. A message that the browser refuses raises AssertionError."""

    def __init__(self, profile: Path) -> None:
        switches = [*_SWITCHES, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # It reads messages from descriptor 3 and writes them to 4.
        command = ["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null', str(PROGRAM), *switches]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, bufsize=0, **pipes)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._read, self._number, self._session = b"", 0, ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to.close()  # it ends by itself then
        self._process.wait(timeout=60)
        self._from.close()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what the browser answers; the events before are passed over."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path, *, width: int = 1200, dark: bool = False) -> None:
        """Show a page, `width` CSS pixels wide."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=page.resolve().as_uri())
        whole = "new Promise(r => document.readyState == 'complete' ? r() : addEventListener('load', () => r()))"
        self.ask("Runtime.evaluate", expression=whole, awaitPromise=True)

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression gives."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self) -> bytes:
        """Return the whole page as a PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        """Return the page as it prints on A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69}  # inches
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False, **paper)["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            found = self._from.read(1 << 20)
            assert found, "the browser has ended"
            self._read += found
        message, self._read = self._read.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer
