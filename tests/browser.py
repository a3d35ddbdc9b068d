"""A real Chromium for tests, without a window and without a driver: it is spoken to over a pipe, in its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import threading

from sidecar_process import PATIENCE_SECONDS, eventually

CHROMIUM = shutil.which("chromium")

_OPTIONS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # CI is root, which Chromium does not run as otherwise; it sees nothing but our own page
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--force-color-profile=srgb",
]


class Browser:
    """One running Chromium."""

    def __init__(self, profile):
        ours_in, its_out = os.pipe()
        its_in, ours_out = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{its_in} 4>&{its_out}', "-", CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(its_in, its_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        self._to, self._from = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._numbers, self._answers, self._pages = itertools.count(1), {}, {}
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="browser")
        self._reader.start()

    def _read(self):
        rest = b""
        while piece := self._from.read1(1 << 20):
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                with self._changed:
                    if "id" in message:
                        self._answers[message["id"]] = message
                    elif message.get("sessionId") in self._pages:
                        self._pages[message["sessionId"]].append((message["method"], message["params"]))
                    self._changed.notify_all()

    def call(self, method, session=None, **parameters):
        """One command, and what it answers."""
        message = {"id": next(self._numbers), "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        with self._changed:
            assert self._changed.wait_for(lambda: message["id"] in self._answers, PATIENCE_SECONDS), f"{method}: no answer"
            answer = self._answers.pop(message["id"])
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    @contextlib.contextmanager
    def page(self, *, width=1280, height=900, dark=False):
        """A page with nothing in it, in a profile of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._pages[session] = events = []
        page = Page(self, session, events)
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        )
        try:
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)
            del self._pages[session]

    def close(self):
        self.call("Browser.close")
        self._process.wait(PATIENCE_SECONDS)
        self._reader.join()
        self._to.close()
        self._from.close()


class Page:
    """One page. `events`: all that it told, as pairs of a method's name and its parameters."""

    def __init__(self, browser, session, events):
        self._browser = browser
        self._session = session
        self.events = events

    def call(self, method, **parameters):
        return self._browser.call(method, self._session, **parameters)

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def goto(self, url):
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer

    def run(self, expression):
        """What the expression is worth there; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector):
        """The visible text of the first such element, without empty lines; an empty one when there is none."""
        shown = self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return "\n".join(line for line in shown.splitlines() if line.strip())

    def wait_for(self, selector, text):
        """Until this element shows this text. Gives all of its text."""
        return eventually(lambda: text in (shown := self.text(selector)) and shown)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key):
        codes = {"Enter": 13, "Tab": 9}
        for kind in ("keyDown", "keyUp"):
            more = {"text": "\r"} if (key, kind) == ("Enter", "keyDown") else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **more)

    def screenshot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def told(self, method):
        """The parameters of each event of this name."""
        return [parameters for name, parameters in list(self.events) if name == method]

    @property
    def complaints(self):
        """Errors and warnings of the console, exceptions, and what the Content-Security-Policy has stopped."""
        consoled = [each for each in self.told("Runtime.consoleAPICalled") if each["type"] in ("error", "warning", "assert")]
        logged = [each["entry"] for each in self.told("Log.entryAdded") if each["entry"]["level"] in ("error", "warning")]
        return consoled + logged + self.told("Runtime.exceptionThrown") + self.told("Audits.issueAdded")

    @property
    def asked(self):
        """The address of each request."""
        return [each["request"]["url"] for each in self.told("Network.requestWillBeSent")]
