"""A scripted life of a sidecar in which everything happens that a dashboard or an alert tells of."""

import contextlib

from sidecar_process import eventually, free_port, on_disk, running, written

FSM = {
    "name": "flight",
    "initial": None,
    "transitions": {
        "BOOTING": ["IDLE", "ERROR_STATE"],
        "IDLE": ["ACTIVE", "SHUTDOWN"],
        "ACTIVE": ["IDLE", "ERROR_STATE"],
        "ERROR_STATE": ["IDLE"],
    },
}
WEBHOOKS = {
    "timeout": "1s",
    "connect_timeout": "500ms",
    "retry": ["100ms", "100ms"],
    "probe_interval": "500ms",
    "evict_after": {"failures": 3, "time": "1s"},
    "max_lag": 5,
    "max_in_flight": 8,
}


class Session:
    """One agent, its old planner, and who listens. `api` and `ops` stay at their addresses over a restart."""

    def __init__(self, folder, hook):
        self._hook = hook
        api, ops = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.ops_address = ops
        self._config = written(
            folder,
            api={"listen": api},
            ops={"listen": ops},
            fsm=FSM,
            journal=on_disk(folder),
            webhooks=WEBHOOKS,
            store={"max_subscribers": 6},
            metrics={"agent": "drone-7", "writers": ["planner", "pilot"]},
            health={"update_expected": True},
            shutdown={"drain_delay": "0s", "flush_timeout": "1s"},
        )

    @contextlib.contextmanager
    def begun(self):
        """The process runs; with an empty store."""
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self.process = stack.enter_context(running(self._config))
            self.api = self.process.api
            yield self

    def restart(self):
        """Stopped in order, and started again on the same journal."""
        assert 0 == self.process.stop()
        self.start_again()

    def start_again(self):
        """On the same journal."""
        self.process = self._stack.enter_context(running(self._config))
        self.api = self.process.api

    def crash(self):
        """Killed in the middle of its life."""
        self.process.kill()

    def write(self, state="IDLE", writer="pilot", status=200, **fields):
        answer = self.api.put("/v1/state", {"state": state, "source_module": writer, **fields})
        assert answer.status in (status, 201), answer
        return answer

    def fly(self):
        """Once through all states and back, and it says that it lives."""
        assert 200 == self.api.post("/v1/heartbeat", {"ttl": "1m"}).status
        for state in ("ACTIVE", "ERROR_STATE", "IDLE"):
            self.write(state)

    def lose(self, count=1):
        """The old planner writes on versions that are gone: each kind of conflict, for each reason."""
        epoch = self.api.get("/v1/state").json["epoch"]
        version = self.api.get("/v1/state").json["snapshot"]["version"]
        body = {"state": "IDLE", "source_module": "planner"}
        enforced = "/v1/state?enforce_version=true"
        for _ in range(count):
            lost = [
                self.api.put(enforced, body | {"version": 0}),
                self.api.put(enforced, body | {"version": version}),
                self.api.put("/v1/state", body, if_match=f'"{epoch}-0"'),
                self.api.put("/v1/state", body, if_match=f'"{epoch}-{version + 9}"'),
                self.api.put("/v1/state", body, if_match=f'"lost-{version}"'),
                self.api.put("/v1/state", body, if_none_match="*"),
                self.api.post("/v1/transitions", {"to": "IDLE", "from": "SHUTDOWN", "source_module": "planner"}),
            ]
            assert {412} == {answer.status for answer in lost}

    def overwrite_unseen(self):
        """The old planner, without a check: accepted, and renumbered."""
        self.write(writer="planner", version=0)

    def be_refused(self):
        """What the machine, the catalogue of states and the router do not know."""
        assert 409 == self.api.put("/v1/state", {"state": "SHUTDOWN" if self.state != "IDLE" else "ERROR_STATE"}).status
        assert 422 == self.api.put("/v1/state", {"state": "LOST"}).status
        assert 404 == self.api.get("/v1/nowhere").status
        assert 422 == self.subscribe("metadata", "http://169.254.169.254/").status

    @property
    def state(self):
        return self.api.get("/v1/state").json["snapshot"]["state"]

    def subscribe(self, name, url, **settings):
        return self.api.put(f"/v1/subscribers/{name}", {"url": url, **settings})

    def status(self, name):
        return self.api.get(f"/v1/subscribers/{name}").json["status"]

    def evict(self, name="dead"):
        """A subscriber on whose port nobody listens, until it is given up."""
        self.subscribe(name, f"http://127.0.0.1:{free_port()}/")
        eventually(lambda: self.status(name) == "evicted", 30)

    def make_a_gap(self, name="slow"):
        """A subscriber that hangs while more is written than it may be behind; then it is told what it missed."""
        self.subscribe(name, self._hook.url + "/slow")
        eventually(lambda: self.api.get(f"/v1/subscribers/{name}").json["lag"] == 0)
        self._hook.answers(503)
        for _ in range(8):
            self.write()
        self._hook.answers(200)
        eventually(lambda: self.api.get(f"/v1/subscribers/{name}").json["lag"] == 0, 30)

    def fill_up(self):
        """All places taken, and one more who wants one; then they are free again."""
        names = [f"guest-{n}" for n in range(8)]
        refused = [self.subscribe(name, self._hook.url).status == 409 for name in names]
        assert any(refused)
        for name in names:
            self.api.delete(f"/v1/subscribers/{name}")
