"""The runbooks are true: one for each alert, all of the same shape, and every command and query in them works."""

import re
import time
from pathlib import Path

import pytest
import yaml
from documents import Shell, blocks, headings, links
from promql import label_problems, problems
from sidecar_process import on_disk, written

from grafana.build import boards
from sidecar import config
from sidecar.alerts import catalogue, offline, settings
from sidecar.alerts.alert import PREFIX, recorded
from sidecar.alerts.scrape import Scrape, Scrapes
from sidecar.metrics import CATALOGUE

DOCS = Path(__file__).parents[1] / "docs"
INDEX = (DOCS / "runbooks" / "README.md").read_text()
ALERTS = {alert.name: alert for alert in catalogue.alerts(settings.load())}
PAGES = {path.stem: path.read_text() for path in sorted((DOCS / "runbooks").glob("*.md")) if path.stem != "README"}
SECTIONS = ["What it means", "Impact", "Confirm", "Causes", "Fix", "Verify", "Tune or silence", "Proof"]
RECORDED = {rule.name: rule for alert in ALERTS.values() for rule in recorded(alert.condition)}
WRONG = {0, 400, 405, 415}
"""What nobody answers to a command that is right; 404 is an answer where nothing is there yet."""

each_alert = pytest.mark.parametrize("name", ALERTS)


def page(name):
    return PAGES[name.lower()]


def section(name, title):
    """The text below this heading."""
    return page(name).split(f"\n## {title}\n")[1].split("\n## ")[0]


# --- the shape ---


def test_every_alert_has_a_page_and_every_page_an_alert():
    """And every address in an alert is that of its page."""
    assert sorted(PAGES) == sorted(name.lower() for name in ALERTS)
    assert [f"{name.lower()}.md" for name in ALERTS] == [alert.runbook.rpartition("/")[2] for alert in ALERTS.values()]


def test_the_index_is_that_of_the_alerts():
    """In their order, with severity and summary."""
    rows = [f"| [{each.name}]({each.name.lower()}.md) | {each.limits.severity} | {each.summary} |" for each in ALERTS.values()]

    assert rows == re.findall(r"^\| \[.*$", INDEX, re.MULTILINE)


@each_alert
def test_a_page_has_its_sections(name):
    """Title and headings, in this order; two queries, a command and a panel to confirm it by; its scenario as proof."""
    confirm = section(name, "Confirm")

    assert [f"# {name}", *(f"## {title}" for title in SECTIONS)] == re.findall(r"^##? .*$", page(name), re.MULTILINE)
    assert 2 == len(blocks(confirm, "promql"))
    assert any("curl" in block for block in blocks(confirm, "sh"))
    assert "Dashboard *" in " ".join(confirm.split())
    assert f"Scenario `{name.removeprefix(PREFIX)}`" in section(name, "Proof")


@each_alert
def test_commands_that_are_not_run_are_marked(name):
    """They are `console` blocks, each beginning with a prompt."""
    assert [] == [block for block in blocks(page(name), "console") if not block.startswith("$ ")]
    assert set(re.findall(r"^```(\w*)$", page(name), re.MULTILINE)) <= {"", "promql", "sh", "console", "yaml"}


# --- what is named exists ---


@each_alert
def test_queries_ask_for_what_there_is(name):
    """They parse; metrics, labels and label values are in the catalogue; a recording rule is one of ours."""
    for query in blocks(page(name), "promql"):
        for rule in RECORDED.values():
            query = query.replace(rule.name, rule.promql(inline=True))
        assert [] == problems(query) + label_problems(query), query


@each_alert
def test_the_numbers_are_those_in_force(name):
    """The line of thresholds.yaml, as it is there."""
    short = name.removeprefix(PREFIX)
    (line,) = re.findall(rf"`{short}: (\{{.*?\}})`", section(name, "Tune or silence"))

    assert yaml.safe_load(settings.DEFAULTS.read_text())["alerts"][short] == yaml.safe_load(line)


@each_alert
def test_panels_are_on_their_dashboards(name):
    """By their titles."""
    text = " ".join(page(name).split())
    for dashboard, panels in re.findall(r'Dashboard \*(\w+)\*, panels? ("[^"]+"(?:, "[^"]+")*)', text):
        titles = re.findall(r'"title": "([^"]+)"', (boards.FOLDER / f"fsm-{dashboard.lower()}.json").read_text())
        assert [] == [panel for panel in re.findall(r'"([^"]+)"', panels) if panel not in titles]


@each_alert
def test_names_in_the_text_exist(name):
    """Metrics, keys of the configuration, and other alerts."""
    text = re.sub(r"^```.*?^```$", "", page(name), flags=re.MULTILINE | re.DOTALL)
    known = set(re.findall(r"^\| `([a-z_.]+)`", (DOCS / "configuration.md").read_text(), re.MULTILINE))
    sections = "|".join({key.partition(".")[0] for key in known})
    keys = set(re.findall(rf"`((?:{sections})\.[a-z_.]+)[`:]", text)) - {"journal.db"}

    assert set(re.findall(r"`(fsm_\w+)", text)) <= {family.name for family in CATALOGUE} | {"fsm_instance_id", "fsm_store_"}
    assert [] == [key for key in keys if key not in known and not any(each.startswith(f"{key}.") for each in known)]
    for other, target in re.findall(r"\[([A-Z]\w+)\]\((fsm\w+)\.md", text):
        assert f"{PREFIX}{other}".lower() == target


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_somewhere(path):
    """To files that are there, and to headings in them."""
    for target, heading in links(path.read_text()):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        assert not heading or heading in headings(file.read_text()), f"{target}#{heading}"


# --- what is said works ---


@pytest.fixture
def shell(start, hook, tmp_path):
    """Starts the sidecar with these sections of the configuration, and gives a shell for its commands, and its scrapes."""

    def begin(sections):
        sections = yaml.safe_load(yaml.safe_dump(sections).replace("http://127.0.0.1:9000/hook", hook.url))
        sidecar = start(**{"journal": on_disk(tmp_path)} | sections)
        return Shell(sidecar.api.address, sidecar.ops.address, hook.url), lambda: sidecar.ops.get("/metrics").body.decode()

    return begin


def run_all(shell, text):
    """Every block, one after the other, as somebody would who works through the page."""
    outputs = [shell(block) for block in blocks(text, "sh")]

    assert [] == [status for status in shell.statuses if status in WRONG or status >= 500]
    assert '"type":"not-found"' not in "".join(outputs)


@each_alert
def test_commands_work(name, shell):
    """From the first to the last, on a sidecar with the defaults."""
    run, _ = shell({})
    run_all(run, page(name).partition("\n## Proof\n")[0])


def configuration_of(name):
    """What the proof says is to be configured."""
    return yaml.safe_load("\n".join(blocks(section(name, "Proof"), "yaml"))) or {}


@each_alert
def test_the_configuration_of_a_proof_can_be_used(name, tmp_path):
    """It loads."""
    assert config.load(str(written(tmp_path, **configuration_of(name))))


@each_alert
def test_a_proof_causes_what_the_alert_asks_for(name, shell):
    """Where it is commands that can be run here; a proof has commands in any case."""
    proof = section(name, "Proof")
    if not blocks(proof, "sh"):
        assert blocks(proof, "console")
        return
    run, scraped = shell(configuration_of(name))
    started, before = time.time(), scraped()
    run_all(run, proof)
    after, now = scraped(), time.time()
    first, second = Scrape.parse(before, started), Scrape.parse(after, now)

    cases = [Scrapes(second, first, now - started), Scrapes(second, second, 1.0)]
    assert any(verdict.beyond for scrapes in cases for verdict in offline.judge([ALERTS[name]], scrapes))
