"""`fsm-sidecar alerts` and `fsm-sidecar rules`: what is true of a sidecar now, and the files for those who watch it always."""

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
import yaml
from sidecar_process import on_disk

from sidecar import asking, cli
from sidecar.alerts import grafana, prometheus
from sidecar.alerts.catalogue import DECLARED
from sidecar.alerts.settings import load


@pytest.fixture
def call(capsys):
    """Runs the command in this process; gives its exit code and what it printed."""

    def run(*arguments):
        try:
            code = cli.main(list(map(str, arguments)))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def answering():
    """A listener that answers every GET as the function does; gives its URL."""
    with contextlib.ExitStack() as stack:

        def serve(answer):
            handler = type("Handler", (http.server.BaseHTTPRequestHandler,), {"do_GET": answer, "log_message": lambda *_: None})
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield serve


def body(content):
    """Answers 200 with this."""

    def answer(handler):
        with contextlib.suppress(ConnectionError):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(content)

    return answer


def url(sidecar):
    return f"http://{sidecar.ops.address}"


def relaying(sidecar, between):
    """Answers with the sidecar's metrics, and after the first time does something to it."""
    answers = []

    def answer(handler):
        if len(answers) == 1:
            between()
        answers.append(sidecar.ops.get("/metrics").body)
        body(answers[-1])(handler)

    return answer


# --- alerts ---


def test_a_sidecar_that_is_well_is_told_so(start, call):
    """Exit 0; and which alerts no scrape can judge, and why."""
    sidecar = start()
    code, out, err = call("alerts", url(sidecar), "--interval", "10ms")
    summary, *unjudged = out.splitlines()
    assert (0, "") == (code, err)
    assert summary.startswith("0 of ")
    assert f" conditions are true at {url(sidecar)}/metrics, looked at over 10ms" in summary
    assert "not judged (who answers is not down): FsmSidecarDown" in unjudged
    assert "not judged (two scrapes see one start at most): FsmSidecarCrashLooping" in unjudged


def test_a_real_sidecar_tells_all_that_the_alerts_ask_for(start, call, tmp_path):
    """With a journal on disk, every alert is judged of which a scrape can tell anything."""
    code, out, _ = call("alerts", url(start(journal=on_disk(tmp_path))), "--interval", "10ms", "--json")
    assert 0 == code
    assert {"FsmSidecarDown", "FsmSidecarMetricsMissing", "FsmSidecarCrashLooping"} == set(json.loads(out)["not_judged"])


def test_a_sidecar_without_a_state_is_told(start, call):
    """One scrape is enough for it: exit 1, with value, threshold, summary and runbook."""
    code, out, _ = call("alerts", url(start(fsm={"initial": None})), "--interval", "0s")
    assert 1 == code
    assert (
        "critical  FsmSidecarNotInitialised: 0 < 1\n"
        "          A sidecar has no state of its agent.\n"
        "          https://github.com/fsm-sidecar/fsm-sidecar/blob/main/docs/runbooks/fsmsidecarnotinitialised.md\n"
    ) in out
    assert "not judged (needs two scrapes): FsmSidecarVersionConflictsHigh, FsmSidecarSecondWriterSuspected, " in out
    assert "looked at once" in out


def test_stale_writes_are_told_while_they_come(start, answering, call):
    """The share of rejected writes, and who wrote unseen over another's state, between the two scrapes."""
    sidecar = start(metrics={"writers": ["planner"]})

    def write():
        for enforce in [True] * 6 + [False] * 2:
            stale = {"state": "IDLE", "version": 0, "source_module": "planner"}
            sidecar.api.put(f"/v1/state?enforce_version={str(enforce).lower()}", stale)

    sidecar.api.put("/v1/state", {"state": "ACTIVE"})
    code, out, _ = call("alerts", answering(relaying(sidecar, between=write)), "--interval", "10ms", "--json")
    told = json.loads(out)
    found = {each["alert"].removeprefix("FsmSidecar"): each for each in told["true"]}
    assert 1 == code
    high, masked = found["VersionConflictsHigh"], found["ConflictsMasked"]
    assert (pytest.approx(6 / 8), ">", 0.1) == (high["value"], high["sign"], high["threshold"])
    assert (2.0, {"writer": "planner"}) == (masked["value"], masked["labels"])
    assert "SecondWriterSuspected" not in found, "six are fewer than its at_least"
    assert told["judged"] + len(told["not_judged"]) == len(DECLARED)


def test_thresholds_of_a_file_hold(start, call, tmp_path):
    """As they do for the rules: what is left out is not looked at, and numbers are those of the file."""
    file = tmp_path / "mine.yaml"
    file.write_text("alerts: {NotInitialised: {enabled: false}, SeriesBudgetExceeded: {above: 10, severity: info}}")
    code, out, _ = call("alerts", url(start(fsm={"initial": None})), "--interval", "0s", "--thresholds", file, "--json")
    told = {each["alert"]: each for each in json.loads(out)["true"]}
    assert 1 == code
    assert "FsmSidecarNotInitialised" not in told
    assert ("info", 10.0) == tuple(told["FsmSidecarSeriesBudgetExceeded"][key] for key in ("severity", "threshold"))


@pytest.mark.parametrize("path", ["", "/", "/metrics", "/metrics?x=1"])
def test_a_url_without_a_path_means_the_metrics(start, call, path):
    """The scheme may be left out, too."""
    address = start().ops.address
    assert 0 == call("alerts", f"http://{address}{path}", "--interval", "0s")[0]
    assert 0 == call("alerts", f"{address}{path}", "--interval", "0s")[0]


def refused(call, url):
    """The one line that says why there is nothing to judge."""
    code, out, err = call("alerts", url, "--interval", "0s")
    assert (69, "") == (code, out)
    assert 1 == err.count("\n")
    return err.removeprefix("fsm-sidecar: ").strip()


def test_a_sidecar_that_is_not_there_is_one_line(call):
    """Exit 69, with the reason."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert f"http://127.0.0.1:{port}/metrics: cannot be reached (Connection refused)" == refused(call, f"127.0.0.1:{port}")


def test_the_wrong_listener_is_one_line(start, call):
    """The API has no metrics, and a probe is none."""
    sidecar = start()
    assert refused(call, sidecar.api.address).endswith("answers 404, not metrics")
    assert "not in the text format of metrics" in refused(call, f"{url(sidecar)}/livez")


def test_metrics_of_something_else_are_one_line(answering, call):
    assert "has no fsm_build_info" in refused(call, answering(body(b"# TYPE go_goroutines gauge\ngo_goroutines 7\n")))


def test_bytes_that_are_no_text_are_one_line(answering, call):
    assert "not in the text format of metrics" in refused(call, answering(body(b"\xff\xfe\x00")))


def test_an_answer_without_an_end_is_one_line(answering, call):
    """It is read up to a bound."""

    def answer(handler):
        with contextlib.suppress(ConnectionError):
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(b"# more\n" * 10_000)

    assert "answers more than 16 MiB" in refused(call, answering(answer))


def test_an_answer_that_breaks_off_is_one_line(answering, call):
    """Half a scrape would be judged as if the rest were well."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'fsm_build_info{version="1",python="3"} 1\n')

    assert refused(call, answering(answer)).endswith("breaks off in the middle of its answer")


def test_nobody_is_sent_elsewhere(start, answering, call):
    """A redirect is an answer that has no metrics."""
    elsewhere = f"{url(start())}/metrics"

    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", elsewhere)
        handler.end_headers()

    assert refused(call, answering(answer)).endswith("answers 302, not metrics")


def test_no_answer_is_one_line(answering, call, monkeypatch):
    """Neither one that never begins, nor one that comes drop by drop."""
    monkeypatch.setattr(asking, "TIMEOUT_SECONDS", 0.2)
    over = threading.Event()

    def dripping(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            while not over.wait(0.05):
                handler.wfile.write(b"#")

    for answer in (lambda _: over.wait(), dripping):
        assert refused(call, answering(answer)).endswith("has not answered within 0.2s")
    over.set()


def test_another_protocol_is_one_line(answering, call):
    assert refused(call, answering(lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n\r\n"))).endswith(
        "does not answer as HTTP"
    )


@pytest.mark.parametrize(
    "argument",
    [
        ("ftp://host",),
        ("http://",),
        ("http://host:port",),
        ("http://a b",),
        ("--interval", "5"),
        ("--interval", "-1s"),
        ("--interval", "999999999999d"),
        ("a", "b"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told(call, argument):
    """Exit 64, and nothing is asked."""
    code, out, err = call("alerts", argument)
    assert (64, "") == (code, out)
    assert err


@pytest.mark.parametrize("closed", [True, False], ids=["a closed pipe", "a full disk"])
def test_what_cannot_be_printed_is_no_answer(closed):
    """74 and no traceback: 1 would mean that an alert's condition is true."""
    with contextlib.ExitStack() as stack:
        if closed:
            read, write = os.pipe()
            os.close(read)
            output = stack.enter_context(os.fdopen(write, "wb"))
        else:
            output = stack.enter_context(open("/dev/full", "wb"))
        command = [sys.executable, "-m", "sidecar", "rules", "prometheus"]
        ended = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)

    assert (74, "" if closed else "fsm-sidecar: cannot write: No space left on device\n") == (ended.returncode, ended.stderr)


# --- rules ---


@pytest.mark.parametrize("kind", [prometheus, grafana], ids=["prometheus", "grafana"])
def test_rules_are_printed(call, kind):
    """The files that come with the product."""
    name = kind.__name__.rpartition(".")[2]
    assert (0, kind.rules_file(load()), "") == call("rules", name)


def test_rules_are_printed_with_other_thresholds(call, tmp_path):
    """A user with other numbers needs the package only."""
    file = tmp_path / "mine.yaml"
    file.write_text("alerts: {Flapping: {above: 7}}")
    _, out, _ = call("rules", "prometheus", "--thresholds", file)
    assert any(rule["expr"].endswith("> 7") for rule in yaml.safe_load(out)["groups"][0]["rules"])


def test_a_mistake_in_thresholds_is_told(call, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("alerts: {Flaping: {above: 7}}")
    assert (64, "", f"{file}:1: alerts.Flaping: unknown key; did you mean Flapping?\n") == call(
        "rules", "grafana", "--thresholds", file
    )
