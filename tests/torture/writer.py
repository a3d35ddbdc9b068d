"""A program that writes states in a closed loop, and keeps a ledger of what it sent and what it was told.

    python writer.py NAME SEED LEDGER

Each line of its input is an address; there it writes until the connection breaks, and says so with a line of its output.
It knows nothing of the sidecar but its HTTP API. Each line of the ledger is one write(2) of a JSON array:

    ["sent", token, etag expected or null]                       before the request is sent
    ["told", token, status, outcome, revision, version, epoch]   after its answer; of a conflict, the winner's version

The token is unique, and the write's reason; everything else of a request follows from the token and the ETag.
"""

import http.client
import json
import os
import random
import sys

SIZES = (10, 200, 1_000, 3_000, 40_000)
STATES = ("IDLE", "ACTIVE", "ERROR_STATE")


def request(token, etag):
    """Method, path, body and headers of the write with this token. Every other one can be repeated safely, by its key."""
    chance = random.Random(token)
    headers = {"Content-Type": "application/json"}
    if etag:
        headers["If-Match"] = etag
    if has_key(token):
        headers["Idempotency-Key"] = token
    if chance.random() < 0.25:
        method, path, body = "POST", "/v1/transitions", {"to": chance.choice(STATES), "reason": token}
    else:
        filler = "x" * chance.choice(SIZES)
        method, path = "PUT", "/v1/state"
        body = {"state": chance.choice(STATES), "reason": token, "context_data": {"filler": filler}}
    return method, path, json.dumps(body).encode(), headers


def has_key(token):
    """Whether the write carries an Idempotency-Key, which is its token."""
    return int(token.rpartition("-")[2]) % 2 == 0


class Ledger:
    """Appends to the file. A line is there when the call returns."""

    def __init__(self, path):
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sent(self, token, etag):
        self._append("sent", token, etag)

    def told(self, token, status, answer):
        current = answer.get("snapshot") or answer.get("current") or {}
        place = answer.get("revision"), current.get("version"), answer.get("epoch")
        self._append("told", token, status, answer.get("outcome"), *place)

    def _append(self, *line):
        os.write(self._handle, json.dumps(line).encode() + b"\n")


class Writer:
    def __init__(self, name, seed, ledger):
        self._name = name
        self._chance = random.Random(f"{seed}-{name}")
        self._ledger = Ledger(ledger)
        self._count = 0
        self._etag = None

    def write_until_cut(self, address):
        """One write after the other, on one connection, for as long as it lasts."""
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            connection.connect()
            while True:
                self._write(connection)
        except (OSError, http.client.HTTPException):
            connection.close()

    def _write(self, connection):
        self._count += 1
        token = f"{self._name}-{self._count}"
        etag = self._etag if self._chance.random() < 0.35 else None
        self._ledger.sent(token, etag)
        connection.request(*request(token, etag))
        response = connection.getresponse()
        answer = json.loads(response.read())
        self._ledger.told(token, response.status, answer)
        if response.status < 300:
            self._etag = response.headers["ETag"]
        elif response.status == 412:
            self._etag = '"{epoch}-{version}"'.format(**answer["current"])


def main(name, seed, ledger):
    writer = Writer(name, seed, ledger)
    for address in sys.stdin:
        writer.write_until_cut(address.strip())
        print("cut", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
