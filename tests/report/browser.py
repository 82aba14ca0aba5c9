"""A headless Chromium driven over its debugging pipe: enough to open a file, ask it things and look at it.

No network port is opened. Dialogs, console errors, policy violations and requests are counted from the first byte.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
"""Where Chromium is installed; None when it is not."""

HANG_GUARD_S = 60.0

# Chromium reads its commands from descriptor 3 and answers on 4.
_PUT_PIPES_IN_PLACE = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, pipe in enumerate(pipes, start=3):
    os.dup2(pipe, number)
os.execv(sys.argv[3], sys.argv[3:])
"""

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Browser:
    """One page in a headless Chromium; a context manager.

    Args:
        width: Width of the page in CSS pixels.
        height: Its height.
        media: Media features to pretend, e.g. {"prefers-color-scheme": "dark"}.
    """

    def __init__(self, *, width: int = 1400, height: int = 900, media: dict[str, str] | None = None) -> None:
        """Remember the settings; the browser starts on entering."""
        self.width, self.height, self.media = width, height, media or {}
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._number = 0

    def __enter__(self) -> Self:
        """Start the browser and attach to an empty page."""
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(prefix="evalrun-chromium-", ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PUT_PIPES_IN_PLACE, str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        try:
            self._attach()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the browser and take its profile away."""
        try:
            self._send("Browser.close")
            self._process.wait(timeout=10)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file and wait until it is loaded."""
        n_before = len(self.events)
        self.call("Page.navigate", url=path.as_uri() + fragment)
        deadline = time.monotonic() + HANG_GUARD_S
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[n_before:]):
            self._receive(deadline)

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + HANG_GUARD_S
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never became true: {expression}"
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, promises awaited."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release one key."""
        for kind in ("keyDown", "keyUp"):
            shown = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **shown)

    def take_picture(self, path: Path, *, full: bool = True) -> None:
        """Write a PNG of the page."""
        reply = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(reply["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the page's debugging protocol and return its result."""
        return self._send(method, self._session, **params)

    @property
    def dialogs(self) -> list[dict[str, Any]]:
        """Dialogs that the page opened."""
        return [event["params"] for event in self.events if event["method"] == "Page.javascriptDialogOpening"]

    @property
    def complaints(self) -> list[str]:
        """Errors of the console, exceptions and violations of the page's policy."""
        found = []
        for event in self.events:
            if event["method"] == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
            elif event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                found.append(json.dumps(event["params"]))
        return found

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for, its own included."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    def _attach(self) -> None:
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=self.width,
            height=self.height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": name, "value": value} for name, value in self.media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

    def _send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + HANG_GUARD_S
        while True:
            reply = self._receive(deadline)
            if reply.get("id") == number:
                assert "error" not in reply, reply
                result: dict[str, Any] = reply["result"]
                return result

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "Chromium ended"
            self._buffer += chunk
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if "method" in message:
            self.events.append(message)
        return message
