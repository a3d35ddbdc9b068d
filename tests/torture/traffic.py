"""Sequential clients that read and write at the same time, and note what each asked and what came back.

`python traffic.py PORT OPERATIONS CLIENTS SEED FILE`: the file gets the history, a JSON line for each operation.
"""

import contextlib
import json
import math
import random
import sys
import threading
import time

from linearizable import OK, READ, REJECTED, UNKNOWN, WRITE, Entry, Expected, Operation
from wire import Wire, request

STATES = ("BOOTING", "IDLE", "ACTIVE", "ERROR_STATE")
PATIENCE_SECONDS = 30.0
READS, STALE, CUT = 0.4, 0.4, 0.03


class Client:
    """One client: it asks, waits for the answer, and asks again. What it knows of the state is what it was last told."""

    def __init__(self, name, port, dice):
        self.name = name
        self.dice = dice
        self.wire = Wire("127.0.0.1", port, PATIENCE_SECONDS)
        self.epoch = ""
        self.known = []
        self.history = []

    def run(self, operations):
        for number in range(operations):
            if not self.epoch or self.dice.random() < READS:
                self._perform(READ, request("GET", "/v1/state"))
            else:
                self._write(f"{self.name}-{number}")

    def _write(self, value):
        """Mostly a compare-and-swap; the module that wrote it is the operation, so that every answer names one."""
        last = self.known[-1] if self.dice.random() > STALE else self.dice.choice(self.known)
        body = {"state": self.dice.choice(STATES), "source_module": value}
        way = self.dice.choices(["match", "enforce", "move", "move from", "put"], [70, 10, 5, 5, 10])[0]
        if way == "match":
            tag = f'"{self.epoch}-{last.version}"'
            self._perform(WRITE, request("PUT", "/v1/state", body, If_Match=tag), value, Expected(version=last.version))
        elif way == "enforce":
            body["version"] = last.version + 1
            self._perform(
                WRITE, request("PUT", "/v1/state?enforce_version=true", body), value, Expected(below=last.version + 1)
            )
        elif way == "put":
            self._perform(WRITE, request("PUT", "/v1/state", body), value)
        else:
            move = {"to": body["state"], "source_module": value}
            expected = Expected(state=last.state if way == "move from" else None)
            if expected.state:
                move["from"] = expected.state
            self._perform(WRITE, request("POST", "/v1/transitions", move), value, expected)

    def _perform(self, kind, data, value="", expected=None):
        """Ask, and note what is known of the outcome. A read without an answer tells nothing."""
        connect_again_and_again(self.wire)
        call, outcome, seen = time.monotonic_ns(), UNKNOWN, None
        if kind == WRITE and self.dice.random() < CUT:
            self.wire.cut(data)
        else:
            with contextlib.suppress(OSError):
                outcome, seen = self._understood(*self.wire.ask(data))
        back = math.inf if outcome == UNKNOWN else time.monotonic_ns()
        if kind == WRITE or outcome == OK:
            self.history.append(Operation(self.name, kind, call, back, outcome, seen, value, expected or Expected()))

    def _understood(self, status, answer):
        """Outcome, and the state in the answer. What is not documented for these requests ends the run."""
        if status in (200, 201):
            seen = entry_of(answer)
            self._learn(answer["epoch"], seen)
            return OK, seen
        if status == 412:
            current = answer["current"]
            seen = Entry(None, current["version"], current["state"], current["source_module"])
            self._learn(current["epoch"], seen)
            return REJECTED, seen
        if status == 503 and answer["type"] in ("overloaded", "draining"):
            return REJECTED, None
        if status == 503 and answer["outcome"] == "unknown":
            return UNKNOWN, None
        raise AssertionError(f"{self.name}: {status} {answer}")

    def _learn(self, epoch, seen):
        assert self.epoch in ("", epoch), f"the epoch was {self.epoch} and is {epoch}"
        self.epoch = epoch
        self.known = [*self.known[-7:], seen]


def entry_of(answer):
    """What an answer about a state tells."""
    snapshot = answer["snapshot"]
    return Entry(answer["revision"], snapshot["version"], snapshot["state"], snapshot["source_module"])


def connect_again_and_again(wire):
    """Until somebody listens: the sidecar is being restarted."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return wire.connect()
        except OSError:
            assert time.monotonic() < deadline, "nobody listens any more"
            time.sleep(0.01)


def read_history(path):
    """What a run has written."""
    with open(path) as lines:
        for line in lines:
            *fields, seen, value, expected = json.loads(line)
            yield Operation(*fields, Entry(*seen) if seen else None, value, Expected(*expected))


def main(port, operations, clients, seed, path):
    """Runs them all, each in a thread. A client that fails ends the run without a file."""
    failures = []
    each = [Client(f"{seed}-{n}", int(port), random.Random(f"{seed}-{n}")) for n in range(int(clients))]

    def run(client):
        try:
            client.run(int(operations) // len(each))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(client,)) for client in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise ExceptionGroup("clients failed", failures)
    with open(path, "w") as lines:
        for client in each:
            lines.writelines(json.dumps(operation) + "\n" for operation in client.history)


if __name__ == "__main__":
    main(*sys.argv[1:])
