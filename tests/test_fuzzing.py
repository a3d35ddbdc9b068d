"""Schemathesis against a real sidecar: what the API does is what its description says, for requests that nobody thought of.

`FUZZ_EXAMPLES=1000 make test ARGS=tests/test_fuzzing.py` looks longer, `SEED` elsewhere.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from described import DOCUMENT
from secrecy import CANARY, token
from sidecar_process import on_disk, receiving, running, written

FUZZING = Path(__file__).parent / "fuzzing"
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "10")
SEED = os.environ.get("SEED", "1")

TOKEN = token("fuzz")

STREAMS = """
[[operations]]
include-path = "/v1/watch"
max-stream-events = 1
request-timeout = 2.0
"""
"""A stream is read to its first event; where none is due, for a while."""

EVENT = {"type": "object", "required": ["event", "data"], "properties": {"event": {"enum": ["state", "gap", "end"]}}}
"""Of a stream. In OpenAPI 3.1 the schema is that of the whole, which would be taken for that of each event."""

TESTED = sum(map(len, DOCUMENT["paths"].values()))


def test_schemathesis_finds_nothing(tmp_path):
    """All its checks, valid and invalid requests, alone and in sequences: no 5xx, nothing that is not described.

    Every operation: streams to their first event, backups of a journal on disk.
    """
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    tokens = [{"name": "fuzz", "file": str(tmp_path / "token"), "scopes": ["admin"]}]
    api = {"listen": "127.0.0.1:0", "tokens": tokens, "max_auth_failures": 1000}
    with receiving() as hook, running(written(tmp_path, api=api, journal=on_disk(tmp_path))) as sidecar:
        description = tmp_path / "openapi.json"  # as a file: the operation that it would be loaded from is not tested
        (tmp_path / "schemathesis.toml").write_text(STREAMS)
        document = sidecar.api.get("/v1/openapi.json", authorization=f"Bearer {TOKEN}").json
        document["paths"]["/v1/watch"]["get"]["responses"]["200"]["content"]["text/event-stream"]["itemSchema"] = EVENT
        description.write_text(json.dumps(document))
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", description, "--url", f"http://{sidecar.api.address}"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),  # fuzzing/hooks.py has one that knows more
            *("--header", f"Authorization: Bearer {TOKEN}", "--header", f"User-Agent: {CANARY}"),
            *("--continue-on-failure", "--max-examples", EXAMPLES, "--seed", SEED, "--no-color"),
        ]
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "hooks",
            "PYTHONPATH": f"{FUZZING}:{FUZZING.parent}",
            "RECEIVER": hook.url,
        }
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

        assert 0 == ran.returncode, ran.stdout + ran.stderr
        for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
            assert f"✅ {phase}" in ran.stdout, ran.stdout
        assert f"Tested: {TESTED}\n" in ran.stdout, ran.stdout
