"""The status page in a real Chromium, against a real sidecar: what it shows, how soon, and what it never does."""

import contextlib
import signal
import time
from collections import Counter
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Browser
from holders import TOKENS, WRONG, one_for_each_scope
from sidecar_process import BASE, eventually, free_port, on_disk, running, written

from sidecar.access import Scope

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)")

TRANSITIONS = {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE"], "ACTIVE": ["IDLE", "ERROR_STATE"], "ERROR_STATE": ["IDLE"]}
EVIL = '<img src=x onerror="alert(1)">\u202e gpj.exe \u2066<script>alert(2)</script>&amp;{{7*7}} '

CONTRASTS = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((n) => n / 255).map((n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if ((numbers(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const holds = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return [...document.body.querySelectorAll("*")].filter((each) => holds(each) && each.checkVisibility()).map((each) => {
    const style = getComputedStyle(each);
    const node = each.closest(".node");
    const [front, back] = node && each.localName === "text"
      ? [style.fill, getComputedStyle(node.querySelector("rect")).fill] : [style.color, ground(each)];
    return [each.textContent.slice(0, 40), ratio(front, back)];
  });
})()"""
"""The text of each element that shows some, and how it stands out from its ground (WCAG 2.2, 1.4.3)."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with contextlib.closing(Browser(tmp_path_factory.mktemp("chromium"))) as browser:
        yield browser


@pytest.fixture
def show(browser):
    """Opens the page of a sidecar, and waits until it is live. At the end nothing may have gone wrong in it unnoticed."""
    opened = []
    with contextlib.ExitStack() as stack:

        def open_page(api, *, status="live", quiet=True, **settings):
            page = stack.enter_context(browser.page(**settings))
            page.goto(f"http://{api.address}/")
            page.wait_for("#connection", status)
            opened.append((page, quiet))
            return page

        yield open_page
        for page, quiet in opened:
            assert not (quiet and page.complaints), page.complaints
            assert 1 == len({urlsplit(url).netloc for url in page.asked if not url.startswith("data:")}), page.asked
            assert [] == page.told("Page.javascriptDialogOpening")


def move(api, to, reason="", by="planner"):
    answer = api.post("/v1/transitions", {"to": to, "reason": reason, "source_module": by})
    assert answer.status in (200, 201), answer


def width_of(page):
    return page.run("document.documentElement.scrollWidth")


# --- what it shows ---


def test_the_page_shows_what_the_sidecar_knows(start, show, hook):
    """The state large, the machine with it lit, how it came there, who listens, and which writes lost."""
    api = start(fsm={"transitions": TRANSITIONS, "name": "flight"}, metrics={"agent": "scout-7"}).api
    api.put("/v1/subscribers/console", {"url": hook.url})
    move(api, "IDLE", "self-test passed")
    api.put("/v1/state", {"state": "IDLE", "reason": "battery full", "context_data": {"battery": 0.87}})
    move(api, "ACTIVE", "mission 12")
    epoch = api.get("/v1/state").json["epoch"]
    api.put("/v1/state", {"state": "IDLE", "source_module": "watchdog"}, if_match=f'"{epoch}-0"')
    page = show(api)
    timeline = page.wait_for("#timeline-body", "mission 12")

    assert "scout-7 flight" == page.text("h1")
    assert "ACTIVE\nmission 12" == page.text("#state")
    assert f"version\n3\nrevision\n4\nepoch\n{epoch}" in page.text("#about")
    assert ["BOOTING", "IDLE", "ACTIVE"] == [word for word in timeline.split() if word in TRANSITIONS][::-1]
    assert "then: battery full" in timeline
    assert "ACTIVE" == page.run("document.querySelector('.node.lit title').textContent")
    assert 2 == page.run("document.querySelectorAll('.edge.open').length")
    assert "May go to IDLE, ERROR_STATE." == page.text("#machine-next")
    assert "up to date" in eventually(lambda: "active" in (text := page.text("#subscribers-body")) and text)
    assert "watchdog" in page.wait_for("#conflicts-body", "wrong expectation")
    assert "1 version conflict" in page.wait_for("#health-body", "unhealthy")
    assert "ACTIVE · scout-7" == page.run("document.title")
    page.run("document.querySelector('summary').click()")
    assert '"battery": 0.87' in page.wait_for("#document-body", "battery")


def test_a_write_is_there_within_a_second(start, show):
    """The state, the lit state of the machine and the timeline; a state in which the agent needs help is told apart."""
    api = start(fsm={"transitions": TRANSITIONS}).api
    page = show(api)
    page.wait_for("#state", "BOOTING")
    for state in ("IDLE", "ACTIVE", "ERROR_STATE"):
        begun = time.monotonic()
        move(api, state, f"to {state.lower()}")
        page.wait_for("#state", state)
        page.wait_for("#timeline-body", f"to {state.lower()}")
        assert time.monotonic() - begun < 1
        assert state == page.run("document.querySelector('.node.lit title').textContent")
    assert page.run("document.querySelector('.name').matches('.fault')")


def test_conflicts_and_a_subscriber_that_falls_behind_appear(start, show, hook):
    """Without a reload; evicted ones too."""
    api = start(webhooks={"retry": ["200ms"] * 20}).api
    page = show(api)
    assert "Nobody" in page.wait_for("#subscribers-body", "webhook")
    api.put("/v1/subscribers/slow", {"url": hook.url})
    assert "active" in page.wait_for("#subscribers-body", "up to date")
    hook.answers(500)
    for number in range(3):
        api.put("/v1/state", {"state": "IDLE", "reason": f"number {number}"})
    assert "server_error (500)" in page.wait_for("#subscribers-body", "lag 3")

    hook.answers(410)
    assert "gone" in page.wait_for("#subscribers-body", "evicted (gone)")
    api.put("/v1/state", {"state": "ACTIVE", "version": 1, "source_module": "legacy"})
    assert "legacy" in page.wait_for("#conflicts-body", "masked")


def test_an_empty_store_says_so_and_shows_the_first_state(start, show):
    """No state, nobody who listens, no conflict, no transition: each is told in words."""
    api = start(fsm={"initial": None}).api
    page = show(api)

    assert "No state yet" in page.text("#state")
    assert "Nothing has happened yet." == page.text("#timeline-body")
    assert "Every move is allowed." == page.text("#machine-next")
    assert "No write has lost" in page.wait_for("#conflicts-body", "No write")
    api.put("/v1/state", {"state": "IDLE", "reason": "the first"})
    page.wait_for("#state", "IDLE\nthe first")


def test_many_writes_at_once_end_with_the_newest(start, show):
    """A page that cannot follow is told of a gap; then it has the last one, and tells of the others what the history says."""
    sidecar = start(watch={"max_lag": 2})
    page = show(sidecar.api)
    page.run("setTimeout(() => { for (const end = Date.now() + 2000; Date.now() < end;); })")
    for number in range(100):
        change = {"state": ("IDLE", "ACTIVE")[number % 2], "reason": f"number {number}", "context_data": {"x": "x" * 100_000}}
        assert 200 == sidecar.api.put("/v1/state", change).status
    assert b'fsm_watch_gaps_total{reason="slow"} 0.0' not in sidecar.ops.get("/metrics").body
    page.wait_for("#about", "revision\n101")
    timeline = page.wait_for("#timeline-body", "number 99\n")

    told = [line for line in timeline.splitlines() if line.startswith("number")]
    assert len(told) >= 10, "a page of the history holds so many of these"
    assert [f"number {number}" for number in range(99, 99 - len(told), -1)] == told


# --- staying live ---


def test_a_restart_is_told_and_lived_through(tmp_path, show):
    """`reconnecting` while it is away, `live` when it is back, with the journal's state, or with that of a new one."""
    port = free_port()
    config = written(tmp_path, api={"listen": f"127.0.0.1:{port}"}, journal=on_disk(tmp_path))
    with running(config) as first:
        move(first.api, "IDLE", "before")
        page = show(first.api, quiet=False)
        assert 0 == first.stop()
    page.wait_for("#connection", "reconnecting")
    assert page.run("document.body.matches('.stale')")
    with running(config) as second:
        move(second.api, "ACTIVE", "after")
        page.wait_for("#connection", "live")
        assert "before" in page.wait_for("#timeline-body", "after")
        second.kill()
    page.wait_for("#connection", "reconnecting")
    with running(written(tmp_path, api={"listen": f"127.0.0.1:{port}"}, fsm={"states": ["A", "B"], "initial": "A"})):
        page.wait_for("#state", "A\nCOLD_START")
        page.wait_for("#connection", "live")
        assert ["A", "B"] == page.run("[...document.querySelectorAll('.node title')].map((each) => each.textContent)")
    assert {"network"} == {each["source"] for each in page.complaints}, page.complaints


def test_a_sidecar_that_stops_says_so(tmp_path, show):
    """While it still answers, and the last write before is shown."""
    with running(written(tmp_path, shutdown={"drain_delay": "1s", "flush_timeout": "0s"})) as sidecar:
        page = show(sidecar.api, quiet=False)
        page.run(
            "new MutationObserver(() => (window.told ??= []).push(document.getElementById('connection').textContent))"
            ".observe(document.getElementById('connection'), {childList: true})"
        )
        move(sidecar.api, "SHUTDOWN", "the last one")
        assert 0 == sidecar.stop()
        page.wait_for("#connection", "reconnecting")

        assert ["the sidecar is stopping", "reconnecting"] == page.run("window.told")
        assert "SHUTDOWN\nthe last one" == page.text("#state")


def test_a_sidecar_that_hangs_is_not_shown_as_live(tmp_path, show):
    """Its connections are open still; but it answers nothing."""
    with running(written(tmp_path)) as sidecar:
        page = show(sidecar.api, quiet=False)
        sidecar.send(signal.SIGSTOP)
        eventually(lambda: page.text("#connection") == "reconnecting", seconds=30)
        sidecar.send(signal.SIGCONT)
        eventually(lambda: page.text("#connection") == "live", seconds=30)


def test_without_a_place_for_watchers_the_page_asks_again_and_again(start, show):
    """It says so, and is hardly later."""
    api = start(watch={"max_watchers": 1}).api
    show(api)
    page = show(api, status="polling", quiet=False)
    move(api, "ACTIVE", "by polling")
    page.wait_for("#state", "ACTIVE\nby polling")
    assert {f"http://{api.address}/v1/watch"} == {each["url"] for each in page.complaints}


def test_a_page_that_nobody_sees_gives_its_connection_back(start, show):
    """A browser has few for all its tabs; when it is seen again it is live again, with what it has missed."""
    sidecar = start()
    page = show(sidecar.api)

    def watchers():
        return [line for line in sidecar.ops.get("/metrics").body.decode().splitlines() if line.startswith("fsm_watchers{")]

    def turn(hidden):
        page.run(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

    turn("true")
    page.wait_for("#connection", "paused")
    eventually(lambda: all(line.endswith(" 0.0") for line in watchers()))
    move(sidecar.api, "ACTIVE", "unseen")
    turn("false")
    page.wait_for("#connection", "live")
    page.wait_for("#state", "ACTIVE\nunseen")


# --- what may come from anywhere ---


def hostile(api):
    """Names, reasons and data that would like to be more than text."""
    data = {EVIL: EVIL, "__proto__": {"polluted": 1}, "long": "M" * 30_000}
    move(api, "ACTIVE", (EVIL * 99)[:4096], "\u202e" + "W" * 127)
    api.put("/v1/state", {"state": "IDLE", "version": 0, "reason": "Z" * 4096, "source_module": EVIL, "context_data": data})
    api.put("/v1/subscribers/" + "s" * 63, {"url": f"http://127.0.0.1:{free_port()}/{'p' * 1900}"})


@pytest.mark.parametrize("width", [320, 1280])
def test_texts_from_elsewhere_are_texts(start, show, width):
    """No element is made of them, none runs, and none is wider than the page or turns what stands beside it."""
    api = start(metrics={"agent": EVIL[:30]}).api
    hostile(api)
    page = show(api, width=width)
    page.wait_for("#conflicts-body", "masked")
    page.wait_for("#subscribers-body", "sss")
    page.run("document.querySelector('summary').click()")
    page.wait_for("#document-body", "more characters")

    assert EVIL[:20] in page.text("h1")
    assert 0 == page.run("document.body.querySelectorAll('img, script, [onerror], [style]').length")
    assert "\\u202e" in page.text("#timeline-body")
    assert "\u202e" not in page.run("document.body.textContent")
    assert page.run("({}).polluted === undefined")
    assert width_of(page) <= width


@pytest.mark.parametrize(
    "names", [["A", "toString", "hasOwnProperty", "constructor"], [f"STATE_{n}" for n in range(255)] + ["X" * 63]]
)
def test_a_machine_may_be_as_it_likes(start, show, names):
    """Names that mean something to a script, and more states than can be drawn, on a phone."""
    api = start(fsm={"states": names, "initial": names[0], "transitions": {names[0]: names[-2:]}}).api
    page = show(api, width=320)
    move(api, names[-1])
    page.wait_for("#state", names[-1])

    lit = page.run("[...document.querySelectorAll('.lit title, .state-chip.lit')].map((each) => each.textContent)")
    assert [names[-1]] == lit
    assert (len(names) < 13) == page.run("document.querySelector('#machine-body svg') !== null")
    assert "No way out of here." == page.text("#machine-next")
    assert width_of(page) <= 320


def test_a_list_of_states_shows_the_current_one_and_keeps_its_readers_place(start, show):
    """However long it is; by keyboard too."""
    names = [f"STATE_{n}" for n in range(200)]
    api = start(fsm={"states": names, "initial": names[0]}).api
    move(api, names[-1])
    page = show(api, width=390)
    page.wait_for("#state", names[-1])
    seen = """((list, lit) => lit.top >= list.top && lit.bottom <= list.bottom)(
        document.querySelector('.states').getBoundingClientRect(), document.querySelector('.lit').getBoundingClientRect())"""
    assert page.run(seen)
    page.run("document.querySelector('.states').focus()")
    move(api, names[100])
    page.wait_for("#state", names[100])

    assert page.run(seen)
    assert page.run("document.activeElement === document.querySelector('.states')")
    place = page.run("document.querySelector('.states').scrollTop")
    move(api, names[101])
    page.wait_for("#state", names[101])
    assert place == page.run("document.querySelector('.states').scrollTop") > 0


# --- for everybody ---


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_its_ground(start, show, hook, dark):
    """By 4.5 at least, by day and by night, in every kind of trouble (WCAG 2.2, AA)."""
    api = start(fsm={"transitions": TRANSITIONS}, webhooks={"retry": ["10ms"]}).api
    move(api, "IDLE")
    move(api, "ACTIVE")
    move(api, "ERROR_STATE", "motor 3 is hot")
    api.put("/v1/state", {"state": "ERROR_STATE", "version": 0})
    api.put("/v1/state", {"state": "ERROR_STATE"}, if_match='"x-0"')
    api.put("/v1/subscribers/fine", {"url": hook.url})
    api.put("/v1/subscribers/lost", {"url": f"http://127.0.0.1:{free_port()}/"})
    page = show(api, dark=dark)
    page.wait_for("#conflicts-body", "masked")
    page.wait_for("#subscribers-body", "lost")
    page.run("document.querySelector('summary').click()")
    page.call(
        "Emulation.setEmulatedMedia",
        features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ],
    )
    contrasts = page.run(CONTRASTS)

    assert 40 < len(contrasts)
    assert [] == [(text, ratio) for text, ratio in contrasts if ratio < 4.5]


def test_the_page_can_be_heard_and_walked_by_keyboard(start, show):
    """Headings and regions have names, what changes is announced, and Tab reaches all that scrolls or opens."""
    api = start().api
    page = show(api)
    page.wait_for("#health-body", "healthy")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = Counter((node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"])
    reached = []
    for _ in range(4):
        page.press("Tab")
        reached.append(page.run("document.activeElement.id || document.activeElement.localName"))

    for name in ("State", "Health", "Machine", "Timeline", "Subscribers", "Conflicts"):
        assert 1 == named["region", name] == named["heading", name]
    assert 1 == named["image", "A machine of 6 states, now in BOOTING."]
    assert "polite" == page.run("document.getElementById('state').ariaLive")
    assert "status" == page.run("document.getElementById('connection').role")
    assert ["timeline-body", "summary"] == reached[:2]


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_is_wider_than_a_phone(start, show, hook, width):
    """With all there is to show."""
    api = start(fsm={"transitions": TRANSITIONS}, metrics={"agent": "agent-7f9c6d5b4-x2x8k.some-namespace"}).api
    api.put("/v1/subscribers/console", {"url": hook.url})
    move(api, "IDLE", "self-test passed")
    api.put("/v1/state", {"state": "IDLE"}, if_match='"x-0"')
    page = show(api, width=width)
    page.wait_for("#conflicts-body", "wrong epoch")
    assert width_of(page) <= width


# --- who may ---


def test_a_token_is_asked_for_and_kept_in_the_tab(start, show, tmp_path):
    """What is wrong with one is told; the right one shows the state, also after a reload, and stays in this tab."""
    page = show(start(api=BASE["api"] | {"tokens": one_for_each_scope(tmp_path)}).api, status="token", quiet=False)

    def enter(token):
        page.run("document.getElementById('token').focus()")
        page.type(token)
        page.press("Enter")

    assert "" == page.text("#access-why")
    enter(f"{WRONG}\u200b")
    page.wait_for("#access-why", "characters that no token has")
    enter(WRONG)
    page.wait_for("#access-why", "not known")
    enter(TOKENS[Scope.SUBSCRIBE])
    page.wait_for("#access-why", "lacks the scope state:read")
    enter(TOKENS[Scope.READ])
    page.wait_for("#state", "BOOTING")
    page.wait_for("#connection", "live")
    page.wait_for("#subscribers-body", "Nobody")
    page.call("Page.reload")
    page.wait_for("#connection", "live")

    assert [] == page.run("Object.keys(localStorage)")
    assert [] == page.call("Network.getCookies")["cookies"]
    assert [] == [url for url in page.asked if TOKENS[Scope.READ] in url]
    assert {"network"} == {each.get("source") for each in page.complaints}, page.complaints
