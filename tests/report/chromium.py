"""A headless Chromium that the tests drive as a reader does, and what it logs and fetches.

It speaks the DevTools protocol over a pipe (`--remote-debugging-pipe`), so that no further package
and no open port are needed: JSON messages, each ended by a zero byte.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = "no Chromium to open the page with"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, "Enter": 13, "?": 191, "/": 191}


class Chromium:
    """One page of one browser. `events` holds what it reported, in order."""

    def __init__(self, profile: Path) -> None:
        commands, answers = _high(os.pipe()), _high(os.pipe())

        def place() -> None:  # Chromium reads commands from 3 and writes answers to 4
            os.dup2(commands[0], 3)
            os.dup2(answers[1], 4)

        self.process = subprocess.Popen(
            [str(PROGRAM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=place,
        )
        os.close(commands[0])
        os.close(answers[1])
        self.to, self.of = commands[1], answers[0]
        self.buffer, self.count, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.of)

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command and its answer. Raises RuntimeError with what the browser says is wrong."""
        self.count += 1
        message: dict[str, object] = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        while (answer := self._read()).get("id") != self.count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self, *, seconds: float = 60.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            if not select.select([self.of], [], [], end - time.monotonic())[0]:
                raise TimeoutError(f"Chromium said nothing for {seconds:.0f} s")
            chunk = os.read(self.of, 2**16)
            if not chunk:
                raise RuntimeError("Chromium has gone")
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:600])
        return done["result"].get("value")

    def wait(self, condition: str, *, seconds: float = 20.0) -> None:
        """Until a JavaScript expression is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.02)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path) -> None:
        """Load a page, and wait until its completions can be used."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete'")
        self.wait("!document.querySelector('.browser') || performance.getEntriesByName('ready')[0]")

    def click(self, selector: str) -> None:
        """Where the middle of the element is, once it has been scrolled there."""
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    def type(self, text: str) -> None:
        for letter in text:
            self.call("Input.insertText", text=letter)

    def press(self, key: str) -> None:
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"text": key} if len(key) == 1 else {}
        pressed = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def tab(self, words: str) -> None:
        """Click the tab whose words begin so."""
        self.run(
            "[...document.querySelectorAll('.tabs button')].forEach((button) => { button.id ="
            f" button.textContent.startsWith({json.dumps(words)}) ? 'wanted' : '' }})"
        )
        self.click("#wanted")

    def pick(self, label: str, words: str) -> None:
        """Choose an option of a select, whose list is no part of the page that could be clicked."""
        self.run(
            f"(() => {{ const s = document.querySelector('select[aria-label={json.dumps(label)}]');"
            f"s.value = [...s.options].find((o) => o.text === {json.dumps(words)}).value;"
            "s.dispatchEvent(new Event('change')) })()"
        )

    def text(self, selector: str) -> str:
        """The words of the first element that fits, white space made single."""
        shown = self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return " ".join(shown.split())

    def errors(self) -> list[str]:
        """What the console would show in red."""
        self.run("0")  # takes up what was reported until now
        return [
            json.dumps(event["params"])[:500]
            for event in self.events
            if event.get("method") == "Runtime.exceptionThrown"
            or (
                event.get("method") == "Log.entryAdded"
                and event["params"]["entry"]["level"] in ("error", "warning")
            )
            or (
                event.get("method") == "Runtime.consoleAPICalled"
                and event["params"]["type"] in ("error", "warning", "assert")
            )
        ]

    def requests(self) -> list[str]:
        """Every address that was asked for, pages opened from a file and inline data aside."""
        self.run("0")
        asked = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("file:", "data:", "about:"))]

    def picture(self, into: Path, *, whole: bool = False) -> None:
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        into.write_bytes(base64.b64decode(taken["data"]))


def _high(pair: tuple[int, int]) -> tuple[int, int]:
    """The pipe on descriptors above those that the child's are put on."""
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pair)
    for end in pair:
        os.close(end)
    return moved[0], moved[1]
