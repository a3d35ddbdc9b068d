"""The real Prometheus and the real Alertmanager on loopback, for tests: started, asked, stopped."""

import contextlib
import http.client
import json
import shutil
import subprocess
import time
import urllib.parse

import pytest
import yaml
from sidecar_process import Client, eventually, free_port

SCRAPE_SECONDS = 1
START_SECONDS = 20.0


def required(program):
    """The program's path; a machine without it skips the test, which CI does not allow."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return path


@contextlib.contextmanager
def _started(folder, name, port, *arguments):
    """The program, once it is ready; its output is in the folder."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([required(name), *arguments], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            client = Client(f"127.0.0.1:{port}")
            eventually(lambda: _is_ready(client, process), START_SECONDS)
            yield client
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def _is_ready(client, process):
    assert process.poll() is None, "it has ended; see its log"
    with contextlib.suppress(OSError, http.client.HTTPException):
        return client.get("/-/ready").status == 200


class Prometheus:
    """Asks it. A result is what its API calls `result`: a list of series."""

    def __init__(self, client):
        self._client = client

    def _get(self, path, **parameters):
        answer = self._client.get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}").json
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def at(self, query, moment):
        return self._get("query", query=query, time=moment)["result"]

    def over(self, query, start, end, step=SCRAPE_SECONDS):
        return self._get("query_range", query=query, start=start, end=end, step=step)["result"]

    def label_values(self, label, selector=None):
        return self._get(f"label/{label}/values", **({"match[]": selector} if selector else {}))

    def exemplars(self, query, start, end):
        return self._get("query_exemplars", query=query, start=start, end=end)

    def targets(self):
        return self._get("targets")["activeTargets"]

    def alerts(self):
        return self._get("alerts")["alerts"]


@contextlib.contextmanager
def prometheus(folder, jobs, rules=(), alertmanager=None):
    """Scrapes every second. `jobs`: those of its configuration."""
    port = free_port()
    config = {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "scrape_timeout": f"{SCRAPE_SECONDS}s",
            "evaluation_interval": f"{SCRAPE_SECONDS}s",
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": list(jobs),
    }
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    arguments = [
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with _started(folder, "prometheus", port, *arguments) as client:
        yield Prometheus(client)


@contextlib.contextmanager
def alertmanager(folder, hook_url):
    """Hands every alert to the hook at once, firing and resolved. Gives its address."""
    port = free_port()
    config = {
        "route": {
            "receiver": "hook",
            "group_by": ["..."],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "hook", "webhook_configs": [{"url": hook_url, "send_resolved": True}]}],
    }
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    arguments = [
        f"--config.file={file}",
        f"--storage.path={folder / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with _started(folder, "prometheus-alertmanager", port, *arguments):
        yield f"127.0.0.1:{port}"


class Pager:
    """What the receiver of the Alertmanager got: for each alert when it was told firing, and when resolved."""

    def __init__(self, hook):
        self._hook = hook

    def told(self, name, status):
        """The alert as it was told with this status, and when (monotonic seconds); or None."""
        for request in self._hook.got:
            for alert in json.loads(request.body)["alerts"]:
                if alert["status"] == status and alert["labels"]["alertname"] == name:
                    return alert, request.at
        return None

    def wait_for(self, name, status, seconds=60.0):
        return eventually(lambda: self.told(name, status), seconds)


class Timer:
    """Seconds since something happened, for the detection times that a test prints."""

    def __init__(self):
        self.at = time.monotonic()

    def until(self, moment):
        return moment - self.at
