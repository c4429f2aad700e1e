"""A real browser for tests: what happens when Chromium opens a page. It is driven over pipes, by its DevTools protocol."""
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--no-first-run", "--disable-background-networking", "--hide-scrollbars")
TIMEOUT = 120       # seconds for one answer, on a loaded machine

# What sticks out of a window of WIDTH pixels at its right, unless it is inside a box that scrolls or hides what is too wide.
STICKING_OUT = """[...document.body.querySelectorAll("*")].filter(element => {
  if (element.getBoundingClientRect().right <= WIDTH + 0.5) return false;
  for (let box = element; box !== document.body; box = box.parentElement)
    if (getComputedStyle(box).overflowX !== "visible" && box.getBoundingClientRect().right <= WIDTH + 0.5) return false;
  return true;
}).map(element => element.tagName.toLowerCase() + " " + element.textContent.trim().slice(0, 40))"""

# Texts with less contrast to what is behind them than WCAG's level AA asks for (4.5 to 1).
FAINT = """(() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const share = [r, g, b][i] / 255;
    return sum + weight * (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  }, 0);
  const behind = element => {
    for (let box = element; box; box = box.parentElement) {
      const color = numbers(getComputedStyle(box).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  const hasText = node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
  return [...document.body.querySelectorAll("*")].filter(hasText).filter(element => {
    if (element.closest("style, script, title")) return false;
    const style = getComputedStyle(element);
    const [a, b] = [light(numbers(element.ownerSVGElement ? style.fill : style.color)), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
  }).map(element => element.tagName.toLowerCase() + " " + element.textContent.trim().slice(0, 40));
})()"""

# Texts less than 8 pixels high, drawn ones among them as large as they are shown.
TINY = """[...document.body.querySelectorAll("*")].filter(element => {
  const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  if (!hasText || element.closest("style, script, title")) return false;
  const scale = element.ownerSVGElement ? element.getScreenCTM().a : 1;
  return parseFloat(getComputedStyle(element).fontSize) * scale < 8;
}).map(element => element.tagName.toLowerCase() + " " + element.textContent.trim().slice(0, 40))"""


@dataclass(frozen=True)
class Visit:
    """What a page did at one width of the window, in one theme; what is folded away in it was unfolded."""
    console: list[str]          # messages and uncaught errors
    requests: list[str]         # addresses it asked for, besides its own and data:; what its policy blocks is in `console`
    width: int                  # of the document, in CSS pixels: more than the window's is a page that scrolls sideways
    sticking_out: list[str]     # elements that pass the right edge
    faint: list[str]            # elements whose text has too little contrast
    tiny: list[str]             # elements whose text is too small
    background: str             # the page's colour, such as "rgb(255, 255, 255)"
    screenshot: bytes           # a PNG of the whole page


def find() -> str | None:
    """The path of an installed Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A headless Chromium, to be used in a `with` statement."""

    def __init__(self, program: str):
        self._program, self._number, self._rest, self._events = program, 0, b"", deque()

    def __enter__(self) -> "Browser":
        self._profile = TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = (Path(self._profile.name) / "stderr").open("wb")
        high = lambda end: fcntl.fcntl(end, fcntl.F_DUPFD, 10)      # beyond 3 and 4, which Chromium uses
        ends = [*os.pipe(), *os.pipe()]
        theirs_in, self._out, self._in, theirs_out = map(high, ends)
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", self._program, *OPTIONS,
             f"--user-data-dir={self._profile.name}"],
            pass_fds=(theirs_in, theirs_out), stdout=self._log, stderr=self._log)
        for end in (*ends, theirs_in, theirs_out):
            os.close(end)
        return self

    def __exit__(self, *_) -> None:
        os.close(self._out)         # Chromium ends when its pipe does
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._log.close()
        self._profile.cleanup()

    def visit(self, path: Path, width: int, dark: bool = False, height: int = 800) -> Visit:
        """Opens an HTML file in a window of that width, as a phone would where it is narrow."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        call = lambda method, **values: self._call(method, session, **values)
        value = lambda code: call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")
        self._events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            call(f"{domain}.enable")
        call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        call("Emulation.setEmulatedMedia", features=[theme])
        address = path.resolve().as_uri()
        if problem := call("Page.navigate", url=address).get("errorText"):
            raise OSError(f"{address} can't be opened: {problem}")
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        value("document.querySelectorAll('details').forEach(each => each.open = true)")
        measured = dict(width=value("document.documentElement.scrollWidth"),
                        sticking_out=value(STICKING_OUT.replace("WIDTH", str(width))),
                        faint=value(FAINT), tiny=value(TINY),
                        background=value("getComputedStyle(document.body).backgroundColor"))
        shot = b64decode(call("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        events = list(self._events)
        self._call("Target.closeTarget", targetId=target)
        of = lambda method: [event["params"] for event in events if event["method"] == f"Network.{method}"]
        blocked = {failed["requestId"] for failed in of("loadingFailed") if failed.get("blockedReason") == "csp"}
        asked = [sent["request"]["url"] for sent in of("requestWillBeSent") if sent["requestId"] not in blocked]
        return Visit([said for event in events if (said := message(event))],
                     [url for url in asked if url != address and not url.startswith("data:")], **measured, screenshot=shot)

    def _call(self, method: str, session: str | None = None, **values) -> dict:
        """The answer to a command; events on the way are kept."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": values} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(command).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _receive(self) -> dict:
        deadline = time.monotonic() + TIMEOUT
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError(f"{self._program} did not answer within {TIMEOUT} s.")
            if not (read := os.read(self._in, 2**20)):
                log = Path(self._log.name).read_text(errors="replace")
                raise RuntimeError(f"{self._program} ended: {log[-1000:]}")
            self._rest += read
        first, _, self._rest = self._rest.partition(b"\0")
        return json.loads(first)


def message(event: dict) -> str:
    """What an event says in the console, "" where nothing."""
    values = event.get("params", {})
    match event["method"]:
        case "Runtime.consoleAPICalled":
            said = " ".join(str(part.get("value", part.get("description"))) for part in values["args"])
            return f"{values['type']}: {said}"
        case "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            return f"exception: {details.get('exception', {}).get('description', details['text'])}"
        case "Log.entryAdded":
            return f"{values['entry']['level']}: {values['entry']['text']}"
    return ""
