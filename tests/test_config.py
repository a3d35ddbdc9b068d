"""The configuration file: it means what it looks like, and a mistake is answered with its place and its mend."""

import base64
import json
import os
import re
import stat
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secrecy import token
from standardwebhooks import Webhook
from yarl import URL

from sidecar import yamlfile
from sidecar.config import (
    REQUEST_LINGER_SECONDS,
    Config,
    Subscriber,
    Webhooks,
    check,
    effective,
    load,
    read_secret,
    read_tokens,
)
from sidecar.config.reader import MAX_PROBLEMS
from sidecar.config.sections import Fsm, Health, Journal, Struct, Token, Writes
from sidecar.errors import ConfigError
from sidecar.machine import Enforcement, Machine
from sidecar.units import Bytes, Listen, Seconds

HERE = Path(__file__).parent.parent
EXAMPLES = sorted((HERE / "config").glob("*.yaml"))
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def file(tmp_path):
    """A config file; call it with the text to get the path."""

    def write(text):
        path = tmp_path / "sidecar.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.fixture
def problems(file):
    """The problems of a text, each without the folder of the file."""

    def read(text):
        path = file(text)
        with pytest.raises(ConfigError) as refusal:
            load(path)
        return [problem.removeprefix(path.removesuffix("sidecar.yaml")) for problem in refusal.value.problems]

    return read


@pytest.fixture
def secret(tmp_path):
    """A file with a secret; call it with other content or another mode."""

    def write(content=SECRET, mode=0o640):
        path = tmp_path / "secret"
        path.write_text(content)
        path.chmod(mode)
        return path

    return write


LISTS = {"subscribers": Subscriber, "api.tokens": Token}
"""The keys that are lists of sections."""


def keys_of(kind=Config, path=""):
    """Every key of the file with the struct's default, written as in YAML."""
    for field in msgspec.structs.fields(kind):
        key = f"{path}{field.encode_name}"
        if isinstance(field.default, Struct):
            yield from keys_of(type(field.default), f"{key}.")
        else:
            text = "needed" if field.required else effective_value(field.default)
            yield key, text
        if key in LISTS:
            yield from keys_of(LISTS[key], f"{key}[].")


def effective_value(value):
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if isinstance(value, str | Seconds | Bytes | Listen) else json.dumps(value)


# Files that come with the product


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_file_in_config_can_be_used(path):
    """Each loads, and gives a machine."""
    fsm = load(str(path)).fsm
    machine = Machine.from_names(fsm.states, fsm.transitions, initial=fsm.initial, enforcement=Enforcement(fsm.enforcement))
    assert list(machine.states.__members__) == list(fsm.states)


def test_the_reference_file_shows_every_key_with_its_default():
    """`config/sidecar.yaml` is the configuration without a file, key by key."""
    path = HERE / "config" / "sidecar.yaml"
    tree, _ = yamlfile.read(str(path))
    assert load(str(path)) == Config() == load(None)
    for key, _ in keys_of():
        *sections, name = key.split(".")
        if sections and sections[-1].endswith("[]"):
            assert re.search(rf"#.*\b{name}:", path.read_text()), key
        else:
            section = tree
            for each in sections:
                section = section[each]
            assert name in section


def test_the_documented_keys_and_defaults_are_those_of_the_code():
    """The table in `docs/configuration.md` has each key once, in order, with the default in force."""
    rows = re.findall(
        r"^\| `([a-z_.\[\]]+)` \|.*?\| `?([^|`]+)`? \| [^|]*\|$", (HERE / "docs/configuration.md").read_text(), re.M
    )
    assert rows == list(keys_of())


# Good files


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "---\n", "{}", "fsm:\nsubscribers:\njournal:\n  retention:\n", "\ufeff# with a BOM"]
)
def test_an_empty_file_or_section_has_the_defaults(file, text):
    """A section may be commented out key by key."""
    assert load(file(text)) == Config()


def test_values_arrive_with_their_units(file):
    """What is written is what the code sees."""
    config = load(
        file(
            "writes: {max_body: 1MiB}\n"
            "api: {listen: unix:/run/api.sock}\n"
            "ops: {listen: 127.0.0.1:0}\n"
            "webhooks: {timeout: 30s, retry: [250ms], max_lag: 0, evict_after: {time: 1h}}\n"
            "shutdown: {drain_delay: 0s, flush_timeout: 0ms}\n"
            "health: {conflict_ratio: 1}\n"
        )
    )
    assert config.writes.max_body_bytes == 1 << 20
    assert config.api.listen == Listen(socket_path="/run/api.sock")
    assert config.ops.listen == Listen(host="127.0.0.1", port=0)
    assert config.webhooks.timeout_seconds == 30
    assert config.webhooks.retry_seconds == (0.25,)
    assert config.webhooks.max_lag == 0
    assert config.webhooks.evict_after.time_seconds == 3600
    assert config.webhooks.evict_after.failures == Config().webhooks.evict_after.failures
    assert config.shutdown.drain_delay_seconds == config.shutdown.flush_timeout_seconds == 0
    assert config.health.conflict_ratio == 1.0


@pytest.mark.parametrize("word", ["off", "warn", '"off"'])
def test_enforcement_off_is_a_word_and_not_false(file, word):
    """YAML 1.1 would read `off` as false."""
    assert load(file(f"fsm: {{enforcement: {word}}}")).fsm.enforcement == word.strip('"')


def test_null_means_none_where_that_is_a_value(file):
    """`initial: null` starts empty; `transitions: null` allows every move."""
    fsm = load(file("fsm: {initial: null, transitions: ~}")).fsm
    assert fsm.initial is None
    assert fsm.transitions is None


def test_a_subscriber_takes_its_secret_from_a_file(file, secret):
    """The struct has the path; `read_secret` gives what receivers verify with."""
    subscriber = load(
        file(f"subscribers: [{{id: a, url: 'https://h/x?y=1', secret_file: {secret()}, timeout: 1s}}]")
    ).subscribers[0]
    assert subscriber == Subscriber(id="a", url="https://h/x?y=1", secret_file=str(secret()), timeout_seconds=Seconds(1))
    assert read_secret(subscriber.secret_file) == SECRET
    assert Webhook(read_secret(subscriber.secret_file))


@pytest.mark.parametrize(
    "text",
    [
        "",
        'fsm: {states: [A, "null", "true", on, y], initial: "null", transitions: {A: ["null", on], on: []}, enforcement: off}',
        "fsm: {initial: null, transitions: {}}",
        "webhooks: {timeout: 2345.6789ms, retry: [0.001s, 1.1s, 36h]}",
        "subscribers: [{id: 1e3x, url: http://h}, {id: '1e3', url: 'http://[::1]:1/?a=%20&b=\"', max_lag: 0, timeout: 1ms}]",
        "health: {conflict_ratio: 1e-05}",
        "journal: {path: 'a \"b\" #: ü'}\napi: {listen: '[::1]:0'}",
    ],
)
def test_what_is_in_force_can_be_printed_and_loaded_again(file, text):
    """`check-config` prints a file that gives the same configuration."""
    config = load(file(text))
    assert load(file(effective(config))) == config


def test_what_is_printed_is_written_as_people_write():
    """Durations and sizes have units, words have no quotes."""
    printed = effective(Config())
    assert "  max_body: 256KiB\n" in printed
    assert "  retry: [500ms, 1s, 2s, 5s, 15s, 30s]\n" in printed
    assert "  evict_after:\n    failures: 10\n    time: 15m\n" in printed
    assert '  listen: "127.0.0.1:8470"\n' in printed


def test_what_is_printed_means_the_same_to_other_yaml_readers(file):
    """PyYAML, which reads YAML 1.1, sees the same tree."""
    text = effective(load(file("fsm: {states: [A, on, n], initial: on, enforcement: off}\njournal: {path: '12:30:45'}")))
    assert yaml.safe_load(text) == yamlfile.read(file(text))[0]


# The YAML itself


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fsm: {}\napi: [1\n", "sidecar.yaml:3: not valid YAML"),
        ("a: b: c", "sidecar.yaml:1: not valid YAML (mapping values are not allowed in this context): indent with spaces"),
        (
            "fsm:\n\tstates: []",
            "sidecar.yaml:2: not valid YAML (found character that cannot start any token): indent with spaces",
        ),
        ("store: {}\nstore: {}", "sidecar.yaml:2: store: written twice, first in line 1; keep one of them"),
        ("api:\n  auth: none\n  auth: none", "sidecar.yaml:3: api.auth: written twice, first in line 2; keep one of them"),
        ("a: &x 1", "sidecar.yaml:1: a: anchor &x is not allowed; write the value out"),
        ("a: 1\nb: *x", "sidecar.yaml:2: b: alias *x is not allowed; write the value out"),
        ("a: &x [*x]", "sidecar.yaml:1: a[0]: alias *x is not allowed; write the value out"),
        ("a: !!python/name:os.system x", "sidecar.yaml:1: a: a tag (!…) is not allowed; leave it out"),
        ("a: !!str 5", "sidecar.yaml:1: a: a tag (!…) is not allowed; leave it out, and put text in quotes"),
        ("---\na: 1\n---\nb: 1", "sidecar.yaml:3: a second document starts; keep one, and delete the line `---`"),
        ("fsm:\n  1: x", "sidecar.yaml:2: fsm.key in line 2: not text; put it in quotes"),
        ("true: x", "sidecar.yaml:1: key in line 1: not text; put it in quotes"),
        ("? [a]\n: x", "sidecar.yaml:1: key in line 1: not text; put it in quotes"),
        ('a: "x\\e[31m"', "sidecar.yaml:1: a: has a control character or a line break; write one line of plain text"),
        ("a: |\n  x\n", "sidecar.yaml:1: a: has a control character or a line break; write one line of plain text"),
        ("\na: \x07", "sidecar.yaml:2: has the control character U+0007; delete it"),
        (b"a: 1\nb: \xff", "sidecar.yaml:2: not UTF-8; save the file in that encoding"),
        ("a: 1".encode("utf-16"), "sidecar.yaml:1: not UTF-8; save the file in that encoding"),
        ("#" * (256 * 1024 + 1), "sidecar.yaml: larger than 256 KiB; is this the right file?"),
        ("[" * 33 + "]" * 33, "sidecar.yaml:1: nested deeper than 32 levels; flatten it"),
        ("[" * 100_000, "sidecar.yaml:1: nested deeper than 32 levels; flatten it"),
        ("{a: " * 30_000, "sidecar.yaml:1: nested deeper than 32 levels; flatten it"),
    ],
)
@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
def test_yaml_that_may_mean_something_else_is_refused(problems, monkeypatch, parser, text, problem):
    """With the line and the mend, whichever parser PyYAML was built with."""
    monkeypatch.setattr(yamlfile, "_LOADER", getattr(yaml, parser))
    found = problems(text)
    words = problem.partition(" (")[0] if "not valid" in problem and parser == "SafeLoader" else problem
    assert [line for line in found if line.startswith(words)], found


def test_32_levels_are_not_too_deep(problems):
    """The limit is a limit of the nesting, and nothing else is wrong with it as YAML."""
    (found,) = problems("[" * 32 + "x" + "]" * 32)
    assert "levels" not in found


def test_several_problems_of_the_yaml_are_listed_together(problems):
    """A duplicate key does not hide an alias."""
    assert len(problems("a: &x 1\na: *x\n1: !t 2")) == 5


@pytest.mark.parametrize("name", ["missing.yaml", "", ".", "a\0b", "x" * 5000])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, name):
    """Missing, a folder, no name at all: always a problem and never a traceback."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        load(name)
    assert refusal.value.problems[0].startswith(f"{name}: cannot be read (")
    assert "check the path and its permissions" in refusal.value.problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("true", True), ("false", False), ("null", None), ("~", None), ("", None)),
        *(("0", 0), ("16", 16), ("-1", -1), ("+1", 1), ("0.1", 0.1), (".5", 0.5), ("1e-05", 1e-05), ("1.5E+3", 1500.0)),
        *((word, word) for word in ("yes", "no", "on", "off", "y", "True", "FALSE", "Null", "NULL", "none")),
        *(
            (word, word)
            for word in ("010", "0x10", "0o7", "1_000", "12:30:45", "2024-01-31", ".inf", ".nan", "5s", "1.", "9" * 19)
        ),
        *(('"1"', "1"), ("'true'", "true"), ('""', ""), ("'null'", "null")),
    ],
)
def test_words_mean_what_they_look_like(file, text, value):
    """The core schema of YAML 1.2, without its octal, hexadecimal and infinite numbers."""
    tree, lines = yamlfile.read(file(f"# first\nkey: {text}"))
    assert tree == {"key": value}
    assert type(tree["key"]) is type(value)
    assert lines[("key",)] == 2


# Shapes and bounds


SUBSCRIBER = "subscribers:\n- {{id: a, url: http://h, {}}}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("webhooks:\n  timeout: 5", ":2: webhooks.timeout: expected a duration such as 250ms, 5s, 15m, 24h or 7d, got 5"),
        (
            "webhooks:\n  retry:\n  - 5s\n  - 1",
            ":4: webhooks.retry[1]: expected a duration such as 250ms, 5s, 15m, 24h or 7d, got 1",
        ),
        ("webhooks: {retry: []}", ":1: webhooks.retry: expected 1 or more entries, got none"),
        ("webhooks: {retry: 5s}", ':1: webhooks.retry: expected a list, got "5s"'),
        ("webhooks: {retry: }", ":1: webhooks.retry: expected a list, got nothing"),
        ("webhooks: {timeout: 31s}", ":1: webhooks.timeout: expected a duration from 1ms to 30s, got 31s"),
        ("webhooks: {timeout: 0s}", ":1: webhooks.timeout: expected a duration from 1ms to 30s, got 0s"),
        ("webhooks: {connect_timeout: 0s}", ":1: webhooks.connect_timeout: expected a duration from 1ms to 30s, got 0s"),
        ("webhooks: {probe_interval: 0s}", ":1: webhooks.probe_interval: expected a duration from 1ms to 365d, got 0s"),
        ("webhooks: {max_retry_after: 366d}", ":1: webhooks.max_retry_after: expected a duration from 1ms to 365d, got 366d"),
        ("webhooks: {tombstone: 0s}", ":1: webhooks.tombstone: expected a duration from 1ms to 365d, got 0s"),
        ("webhooks: {max_lag: -1}", ":1: webhooks.max_lag: expected a whole number of at least 0, got -1"),
        ("webhooks: {max_in_flight: 0}", ":1: webhooks.max_in_flight: expected a whole number of at least 1, got 0"),
        ("webhooks: {evict_after: 5}", ":1: webhooks.evict_after: expected the keys failures, time, got 5"),
        (
            "webhooks: {evict_after: {failures: 0}}",
            ":1: webhooks.evict_after.failures: expected a whole number of at least 1, got 0",
        ),
        ("health: {window: 0s}", ":1: health.window: expected a duration from 1ms to 365d, got 0s"),
        ("health: {conflict_ratio: 1.5}", ":1: health.conflict_ratio: expected a number from 0.0 to 1.0, got 1.5"),
        ("health: {conflict_ratio: -0.1}", ":1: health.conflict_ratio: expected a number from 0.0 to 1.0, got -0.1"),
        ("health: {conflict_ratio: 1e999}", ":1: health.conflict_ratio: expected a number from 0.0 to 1.0, got inf"),
        ("health: {conflict_ratio: 10%}", ':1: health.conflict_ratio: expected a number, got "10%"'),
        ("fsm: {history_limit: 1001}", ":1: fsm.history_limit: expected a whole number from 0 to 1000, got 1001"),
        ("fsm: {history_limit: 010}", ':1: fsm.history_limit: expected a whole number, got "010"'),
        ("fsm: {history_limit: 1.5}", ":1: fsm.history_limit: expected a whole number, got 1.5"),
        ("fsm: {history_limit: true}", ":1: fsm.history_limit: expected a whole number, got true"),
        ("fsm: {enforcement: strict}", ':1: fsm.enforcement: expected one of enforce, warn, off, got "strict"'),
        ("fsm: {enforcement: false}", ":1: fsm.enforcement: expected one of enforce, warn, off, got false; put it in quotes"),
        ("fsm: {initial: 1}", ":1: fsm.initial: expected text, got 1; put it in quotes"),
        ("fsm: {states: []}", ":1: fsm.states: expected 1 to 256 entries, got none"),
        (f"fsm: {{states: [{', '.join(f's{n}' for n in range(257))}]}}", ":1: fsm.states: expected 1 to 256 entries, got 257"),
        (
            "fsm: {states: [A, 1st, BOOTING]}",
            ":1: fsm.states[1]: expected a name of letters, digits and _, at most 64, not a digit",
        ),
        (
            "fsm: {states: [a-b, BOOTING]}",
            ":1: fsm.states[0]: expected a name of letters, digits and _, at most 64, not a digit",
        ),
        (f"fsm: {{states: [{'a' * 65}, BOOTING]}}", f'at most 64, not a digit first, got "{"a" * 60}…"'),
        ("fsm: {states: [true, BOOTING]}", ":1: fsm.states[0]: expected text, got true; put it in quotes"),
        ("fsm: {states: [mro, BOOTING]}", ":1: fsm.states[0]: mro has a meaning of its own in Python; choose another name"),
        ("fsm: {states: [__init__, BOOTING]}", ":1: fsm.states[0]: __init__ has a meaning of its own in Python"),
        ("fsm: {transitions: [A]}", ":1: fsm.transitions: expected keys and values, got a list"),
        ("fsm: {transitions: {IDLE: ACTIVE}}", ':1: fsm.transitions.IDLE: expected a list, got "ACTIVE"'),
        ("fsm: {transitions: {IDLE: }}", ":1: fsm.transitions.IDLE: expected a list, got nothing"),
        ("store: {max_subscribers: 0}", ":1: store.max_subscribers: expected a whole number from 1 to 100000, got 0"),
        ("store: {max_subscribers: 100001}", ":1: store.max_subscribers: expected a whole number from 1 to 100000, got 100001"),
        ("store: {queue_size: 0}", ":1: store.queue_size: expected a whole number of at least 1, got 0"),
        ("store: {queue_size: " + "9" * 5000 + "}", ":1: store.queue_size: expected a whole number, got "),
        ("writes: {max_body: 1023B}", ":1: writes.max_body: expected a size from 1KiB to 16MiB, got 1023B"),
        ("writes: {max_body: 17MiB}", ":1: writes.max_body: expected a size from 1KiB to 16MiB, got 17MiB"),
        ("writes: {max_body: 65536}", ":1: writes.max_body: expected a size such as 512B, 256KiB, 16MiB or 1GiB, got 65536"),
        ("writes: {require_precondition: no}", ':1: writes.require_precondition: expected true or false, got "no"'),
        ("writes: {require_precondition: 1}", ":1: writes.require_precondition: expected true or false, got 1"),
        (
            "journal: {retention: {revisions: 0}}",
            ":1: journal.retention.revisions: expected a whole number of at least 1, got 0",
        ),
        (
            "journal: {retention: {bytes: 63KiB}}",
            ":1: journal.retention.bytes: expected a size of at least 64KiB, got 63KiB",
        ),
        ("journal: {retention: {age: 0s}}", ":1: journal.retention.age: expected a duration from 1ms to 365d, got 0s"),
        ("journal: {min_free: 67108864}", ":1: journal.min_free: expected a size such as 512B, 256KiB, 16MiB or 1GiB"),
        ("journal: {ballast: false}", ":1: journal.ballast: expected a size such as 512B, 256KiB, 16MiB or 1GiB"),
        ("writes: {max_queue: 0}", ":1: writes.max_queue: expected a whole number of at least 1, got 0"),
        ("writes: {idempotency: 10m}", ":1: writes.idempotency: expected the keys ttl, max_keys, got "),
        ("writes: {idempotency: {ttl: 0s}}", ":1: writes.idempotency.ttl: expected a duration from 1ms to 365d, got 0s"),
        (
            "writes: {idempotency: {max_keys: 1000001}}",
            ":1: writes.idempotency.max_keys: expected a whole number from 1 to 1000000, got 1000001",
        ),
        (
            "journal: {path: ':memory:'}",
            ":1: journal.path: expected the path of a file; to keep nothing across a restart write",
        ),
        ("journal: {path: ''}", ":1: journal.path: expected the path of a file; to keep nothing across a restart write"),
        ("journal: {path: 5}", ":1: journal.path: expected text, got 5; put it in quotes"),
        ("journal: {backend: postgres}", ':1: journal.backend: expected one of sqlite, memory, got "postgres"'),
        ("api: {hosts: ['evil.example:80']}", ":1: api.hosts[0]: expected a host's name, without a port"),
        ("api: {cors: ['*']}", ":1: api.cors[0]: expected an origin as browsers send it, such as https://console.example.org"),
        ("api: {cors: ['https://console.example.org/']}", ":1: api.cors[0]: expected an origin as browsers send it"),
        ("api: {cors: ['null']}", ":1: api.cors[0]: expected an origin as browsers send it"),
        ("api: {listen: 8470}", ':1: api.listen: expected "host:port" such as "127.0.0.1:8470"'),
        ("shutdown: {drain_delay: -1s}", ":1: shutdown.drain_delay: expected a duration such as"),
        ("logging: {level: INFO}", ':1: logging.level: expected one of debug, info, warning, error, got "INFO"'),
        ("fsm: [1]", ":1: fsm: expected the keys name, states, initial, transitions, enforcement, history_limit,"),
        (
            "hello",
            ":1: expected the keys fsm, store, writes, heartbeat, journal, api, ops, webhooks, subscribers, watch, health,",
        ),
        ("\n- fsm", ":2: expected the keys fsm, store"),
        ("stroe: {}", ":1: stroe: unknown key; did you mean store?"),
        ("webhooks: {Timeout: 5s}", ":1: webhooks.Timeout: unknown key; did you mean timeout?"),
        ("webhooks:\n  evict_after:\n    count: 5", ":3: webhooks.evict_after.count: unknown key; known here: failures, time"),
        ("on: {}", ":1: on: unknown key; "),
        ("subscribers: {a: b}", ":1: subscribers: expected a list, got keys and values"),
        (
            "subscribers:\n- 5",
            ":2: subscribers[0]: expected the keys id, url, secret_file, timeout, max_lag, on, states, max_batch, got 5",
        ),
        ("subscribers:\n- {id: a}", ":2: subscribers[0].url: missing; write `url: …`"),
        ("subscribers:\n-", ":2: subscribers[0].id: missing; write `id: …`"),
        (
            "subscribers: [{id: a/b, url: http://h}]",
            ":1: subscribers[0].id: expected an id of letters, digits, _ and -, at most 63",
        ),
        (
            "subscribers: [{id: -a, url: http://h}]",
            ":1: subscribers[0].id: expected an id of letters, digits, _ and -, at most 63",
        ),
        (SUBSCRIBER.format("timeout: 31s"), ":2: subscribers[0].timeout: expected a duration from 1ms to 30s, got 31s"),
        (SUBSCRIBER.format("max_lag: -1"), ":2: subscribers[0].max_lag: expected a whole number of at least 0, got -1"),
        (SUBSCRIBER.format("secret: x"), ":2: subscribers[0].secret: unknown key; did you mean secret_file?"),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_its_mend(problems, text, problem):
    """One problem gives one line: the file, the line, the key, what is expected, and what is there."""
    (found,) = [each for each in problems(text) if problem in each] or [problems(text)]
    assert problem in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://h/", "h", "//h/", "http://", "http:///x", "http://:80/", "http://h:0/", "http://h:65536/", "http://h:x/"),
        *("http://u@h/", "http://u:hunter2@h/", "http://@h/", "http://h/#", "http://h/#frag", "http://h\\@x/", "http://h/ x"),
        *("http://[:::]/", "http://[::1/", "http://[127.0.0.1]/", "http://hé/", "http://h/é", "http://-h/", "http://h./"),
        "http://h/" + "x" * 2048,
    ],
)
def test_a_url_that_cannot_be_called_is_refused_without_showing_it(problems, url):
    """A URL in the wrong shape may hold a password."""
    (found,) = problems(json.dumps({"subscribers": [{"id": "a", "url": url}]}))
    assert found.startswith("sidecar.yaml:1: subscribers[0].url: expected an http:// or https:// URL with a host")
    assert "hunter2" not in found


@given(
    url=st.from_regex(
        r"https?://([a-z0-9]([a-z0-9.-]{0,9}[a-z0-9])?|\[::[0-9a-f]{1,4}\])(:[1-9][0-9]{0,3})?(/[a-z0-9%&=?@:\\^|\"<>{}]{0,9})?",
        fullmatch=True,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_url_that_is_accepted_can_be_parsed_by_the_client(file, url):
    """What loads does not fail later."""
    try:
        config = load(file(json.dumps({"subscribers": [{"id": "a", "url": url}]})))
    except ConfigError:
        return
    parsed = URL(config.subscribers[0].url)
    assert parsed.host
    assert parsed.user is None


# Rules across keys


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fsm:\n  states: [A, B]\n  initial: C", ':3: fsm.initial: "C" is not one of fsm.states; known here: A, B'),
        ("fsm: {states: [READY]}", ':1: fsm.initial: "BOOTING" is not one of fsm.states; known here: READY'),
        ("fsm: {initial: BOOTNG}", ':1: fsm.initial: "BOOTNG" is not one of fsm.states; did you mean BOOTING?'),
        ("fsm:\n  transitions:\n    IDEL: []", ':3: fsm.transitions.IDEL: "IDEL" is not one of fsm.states; did you mean IDLE?'),
        (
            "fsm:\n  transitions:\n    IDLE:\n    - ACTIVE\n    - BUSY",
            ':5: fsm.transitions.IDLE[1]: "BUSY" is not one of fsm.states',
        ),
        ("fsm: {states: [A, B, A], initial: A}", ':1: fsm.states[2]: "A" is already fsm.states[0]; give each its own name'),
        (
            "subscribers:\n- {id: a, url: http://h}\n- {id: a, url: http://h}",
            ':3: subscribers[1].id: "a" is already subscribers[0].id; give each its own name',
        ),
        (
            "store: {max_subscribers: 1}\nsubscribers:\n- {id: a, url: http://h}\n- {id: b, url: http://h}",
            ":2: subscribers: 2 subscribers, and store.max_subscribers is 1; raise it, or remove some",
        ),
        (
            "writes: {lease: {ttl: 2h}}",
            ":1: writes.lease.ttl: expected at most writes.lease.max_ttl (1h), got 2h",
        ),
        (
            "heartbeat: {max_ttl: 5s}",
            ":1: heartbeat.ttl: expected at most heartbeat.max_ttl (5s), got 15s",
        ),
        ("heartbeat: {last_will: {}}", ":1: heartbeat.last_will.state: missing; write `state: …`"),
        (
            "heartbeat:\n  last_will:\n    state: EROR_STATE",
            ':3: heartbeat.last_will.state: "EROR_STATE" is not one of fsm.states; did you mean ERROR_STATE?',
        ),
        (
            "heartbeat: {last_will: {state: IDLE, unless: [SHUTDWN]}}",
            ':1: heartbeat.last_will.unless[0]: "SHUTDWN" is not one of fsm.states; did you mean SHUTDOWN?',
        ),
        (
            "fsm: {transitions: {IDLE: [ACTIVE]}}\nheartbeat: {last_will: {state: ERROR_STATE}}",
            ':2: heartbeat.last_will.state: no state may go to "ERROR_STATE", so that it could never be executed',
        ),
        (
            "fsm:\n  max_dwell:\n    BOOTNG: 60s",
            ':3: fsm.max_dwell.BOOTNG: "BOOTNG" is not one of fsm.states; did you mean BOOTING?',
        ),
        (
            "webhooks:\n  timeout: 1s",
            ":2: webhooks.connect_timeout: expected at most webhooks.timeout (1s), got 2s",
        ),
        (
            "webhooks: {connect_timeout: 6s}",
            ":1: webhooks.connect_timeout: expected at most webhooks.timeout (5s), got 6s",
        ),
        (
            "webhooks: {evict_after: {time: 4s}}",
            ":1: webhooks.evict_after.time: expected at least webhooks.timeout (5s), got 4s: otherwise one slow attempt",
        ),
        (
            "journal:\n  retention: {revisions: 1000}",
            ":2: webhooks.max_lag: expected at most journal.retention.revisions (1000), got 1024: what is no longer kept",
        ),
        (
            SUBSCRIBER.format("max_lag: 100001"),
            ":2: subscribers[0].max_lag: expected at most journal.retention.revisions (100000)",
        ),
        (
            "journal:\n  retention: {bytes: 128KiB}",
            ":2: journal.retention.bytes: expected at least writes.max_body (256KiB), got 128KiB: one large state",
        ),
        (
            "api: {listen: '0.0.0.0:8470'}",
            ":1: api.listen: 0.0.0.0:8470 can be reached from elsewhere: name who may come in with `tokens`,"
            " listen on 127.0.0.1 or a Unix socket, or accept everybody with `auth: none`",
        ),
        ("api: {listen: '[::]:8470'}", ":1: api.listen: [::]:8470 can be reached from elsewhere"),
        ("api: {listen: 'localhost:8471'}", ":1: ops.listen: api.listen has port 8471 too; give one of them another"),
        ("ops: {listen: 'unix:/run/o'}", ':1: ops.listen: expected "host:port": the kubelet and Prometheus come by TCP'),
        (
            "shutdown:\n  grace_period: 12s",
            ":2: shutdown.grace_period: expected more than 12s:"
            " drain_delay (2s), flush_timeout (5s) and 5s for open requests; got 12s",
        ),
        ("shutdown:\n  drain_delay: 20s", ":2: shutdown.grace_period: expected more than 30s: drain_delay (20s)"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(problems, text, problem):
    """Each rule names the values it compared."""
    (found,) = problems(text)
    assert problem in found


@pytest.mark.parametrize(
    "text",
    [
        "api: {listen: '0.0.0.0:8470', auth: none}",
        "api: {listen: '127.0.0.1:0'}\nops: {listen: '0.0.0.0:0'}",
        "api: {listen: unix:/run/fsm-sidecar/api.sock}",
        "webhooks: {timeout: 2s, connect_timeout: 2s, evict_after: {time: 2s}}",
        "webhooks: {max_lag: 5}\njournal: {retention: {revisions: 5}}",
        "writes: {max_body: 64KiB}\njournal: {retention: {bytes: 64KiB}}",
        "shutdown: {grace_period: 12.001s}",
        "store: {max_subscribers: 1}\nsubscribers: [{id: a, url: http://h}]",
        "fsm: {states: [A], initial: A, transitions: {A: [A]}}",
    ],
)
def test_values_at_the_edge_of_a_rule_are_accepted(file, text):
    """A rule refuses only what breaks it."""
    assert check(load(file(text))) == []


def test_the_defaults_leave_time_for_open_requests():
    """The sum that a drain can take stays below the pod's grace period."""
    shutdown = Config().shutdown
    spent = shutdown.drain_delay_seconds + shutdown.flush_timeout_seconds + REQUEST_LINGER_SECONDS
    assert spent < shutdown.grace_period_seconds


def test_a_configuration_built_in_code_can_be_checked():
    """`check` needs no file, and names the keys all the same."""
    config = msgspec.structs.replace(Config(), ops=msgspec.structs.replace(Config().ops, listen=Listen.parse("unix:/run/o")))
    assert check(config) == ['ops.listen: expected "host:port": the kubelet and Prometheus come by TCP']


# Secret files


@pytest.mark.parametrize(
    "content",
    [
        *("", "\n", "hunter2", "whsec_", "whsec_hunter2", "whsec_" + "A" * 28, SECRET.removeprefix("whsec_"), f"x{SECRET}"),
        *(
            SECRET + "hunter2=",
            f"{SECRET}\n{SECRET}",
            SECRET.replace("A", "-"),
            "whsec_" + base64.b64encode(bytes(65)).decode(),
        ),
        "hunter2" * 1000,
    ],
)
def test_a_wrong_secret_is_refused_without_showing_it(problems, secret, content):
    """The log of a failed start must not hold a secret."""
    (found,) = problems(SUBSCRIBER.format(f"secret_file: {secret(content)}"))
    assert found.startswith("sidecar.yaml:2: subscribers[0].secret_file: expected one line in ")
    assert "whsec_ and the base64 of 24 to 64 random bytes" in found
    assert "hunter2" not in found


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("end", ["", "\n", " \r\n"])
def test_a_secret_may_end_with_a_line_break(file, secret, size, end):
    """Editors and `echo` add one."""
    text = "whsec_" + base64.b64encode(bytes(size)).decode()
    path = load(file(SUBSCRIBER.format(f"secret_file: {secret(text + end)}"))).subscribers[0].secret_file
    assert read_secret(path) == text


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o777])
def test_a_secret_file_that_is_open_to_everybody_is_refused(problems, secret, mode):
    """With the command that closes it."""
    path = secret(mode=mode)
    (found,) = problems(SUBSCRIBER.format(f"secret_file: {path}"))
    assert f"subscribers[0].secret_file: {path} is open to everybody; chmod o= {path}" in found
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o007)
    assert read_secret(str(path)) == SECRET


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/nowhere/secret", "/nowhere/secret cannot be read (No such file or directory); check the path"),
        ("/dev/null", "/dev/null is not a file; name the file that holds the secret"),
        ("/", "/ cannot be read (Is a directory); check the path"),
        ("''", " cannot be read (No such file or directory); check the path"),
        (SECRET, "expected the path of a file that holds the secret, not the secret itself"),
    ],
)
def test_a_secret_file_that_is_none_is_refused(problems, path, problem):
    """Missing, a folder, a device, or the secret itself, which is not shown."""
    (found,) = problems(SUBSCRIBER.format(f"secret_file: {path}"))
    assert f":2: subscribers[0].secret_file: {problem}" in found
    assert SECRET not in found


def test_a_secret_file_that_is_a_pipe_does_not_hang(problems, tmp_path):
    """Opening one without a writer would wait for ever."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (found,) = problems(SUBSCRIBER.format(f"secret_file: {tmp_path / 'pipe'}"))
    assert "is not a file" in found


TOKEN = token("agent", 32)
TOKENS = "api:\n  tokens:\n  - {{name: agent, file: {}, scopes: [state:read]}}"


@pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f"\n{TOKEN}x\r\n\n  {TOKEN}\n", "\n".join(["~" * 256 + "\n"] * 8)])
def test_a_token_file_has_one_or_more_tokens(file, secret, content):
    """One a line, however the lines end."""
    (entry,) = load(file(TOKENS.format(secret(content)))).api.tokens
    assert content.split() == [token.decode() for token in read_tokens(entry.file)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty; put one token a line there: openssl rand -hex 32"),
        (" \n\r\n", "is empty; put one token a line there"),
        ("hunter2" + "x" * 24, "expected 32 to 256 visible ASCII characters as token 1 in"),
        (f"{TOKEN}\nhunter2", "expected 32 to 256 visible ASCII characters as token 2 in"),
        (f"hunter2 {TOKEN}", "expected 32 to 256 visible ASCII characters as token 1 in"),
        (f"hunter2{TOKEN}ü", "expected 32 to 256 visible ASCII characters as token 1 in"),
        ("hunter2" + "x" * 250, "expected 32 to 256 visible ASCII characters as token 1 in"),
        (f"hunter2{TOKEN}\n" * 9, "expected at most 8 tokens in"),
        (f"hunter2{TOKEN}" * 1000, "expected at most 8 tokens in"),
    ],
)
def test_wrong_tokens_are_refused_without_showing_them(problems, secret, content, problem):
    """With the command that makes a good one."""
    (found,) = problems(TOKENS.format(secret(content)))
    assert ":3: api.tokens[0].file: " in found
    assert problem in found
    assert "hunter2" not in found


def test_a_token_file_that_is_none_is_refused(problems, secret, tmp_path):
    """Missing, open to everybody, a folder, a pipe; or a token that stands where its file's name should."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    cases = [
        (TOKEN, "there is no such file; name the file that holds the tokens"),
        ("/nowhere/" + TOKEN, "there is no such file; name the file"),
        (secret(TOKEN, mode=0o644), f"is open to everybody; chmod o= {tmp_path / 'secret'}"),
        (tmp_path, f"{tmp_path} cannot be read (Is a directory)"),
        (tmp_path / "pipe", f"{tmp_path / 'pipe'} is not a file; name the file that holds the tokens"),
    ]
    found = [problems(TOKENS.format(path)) for path, _ in cases]
    assert [1] * len(cases) == [len(each) for each in found]
    for (_, problem), (text,) in zip(cases, found, strict=True):
        assert problem in text
        assert TOKEN not in text


@pytest.mark.parametrize(
    "text",
    [
        f"api: {{tokens: [{TOKEN}]}}",
        f"api: {{tokens: {TOKEN}}}",
        f"api: {{tokens: [{{name: a, file: /x, scopes: [{TOKEN}]}}]}}",
    ],
)
def test_a_token_in_the_wrong_place_is_not_shown(problems, text):
    """Who writes it into the config file itself is told what belongs there."""
    assert TOKEN not in "".join(problems(text))


def test_a_token_belongs_to_one_holder(problems, secret):
    """Otherwise nobody could say who came."""
    entry = f"{{{{name: {{}}, file: {secret(TOKEN)}, scopes: [admin]}}}}"
    (found,) = problems(f"api:\n  tokens:\n  - {entry.format('a')}\n  - {entry.format('b')}")
    assert ':4: api.tokens[1].file: holds a token of "a" too; give each a token of its own' in found
    (found,) = problems(f"api: {{tokens: [{entry.format('a')}, {entry.format('a')}]}}")
    assert 'api.tokens[1].name: "a" is already api.tokens[0].name' in found


@pytest.mark.parametrize("listen", ["0.0.0.0:8470", "127.0.0.1:8470"])
def test_tokens_and_nobody_needs_one_do_not_go_together(file, problems, secret, listen):
    """With tokens others may reach the API; `auth: none` beside them is a mistake."""
    text = f"api: {{{{listen: '{listen}', tokens: [{{{{name: a, file: {secret(TOKEN)}, scopes: [admin]}}}}]{{}}}}}}"
    assert load(file(text.format("")))
    (found,) = problems(text.format(", auth: none"))
    assert "api.auth: there are api.tokens, and none says that nobody needs one; keep one of them" in found


def test_a_secret_in_the_wrong_place_is_not_shown(problems):
    """Whatever key it was written to."""
    assert SECRET not in "".join(
        problems(f"fsm: {{initial: {SECRET}}}\nlogging: {{level: {SECRET}}}\napi: {{listen: {SECRET}}}")
    )


# All at once


def test_all_problems_of_a_file_are_listed_together_in_the_order_of_the_file(problems):
    """Shapes, unknown keys, rules and secret files, in one go."""
    found = problems(
        "shutdown: {grace_period: 1s}\n"
        "fsm: {enforcement: strict, initial: NOPE}\n"
        "webhooks:\n"
        "  timeout: 5\n"
        "  max_lagg: 5\n"
        "subscribers:\n"
        "- {id: a, url: nope}\n"
        "- {id: a, url: http://h, secret_file: /nowhere}\n"
    )
    assert [each.split(": ")[:2] for each in found] == [
        ["sidecar.yaml:1", "shutdown.grace_period"],
        ["sidecar.yaml:2", "fsm.enforcement"],
        ["sidecar.yaml:2", "fsm.initial"],
        ["sidecar.yaml:4", "webhooks.timeout"],
        ["sidecar.yaml:5", "webhooks.max_lagg"],
        ["sidecar.yaml:7", "subscribers[0].url"],
        ["sidecar.yaml:8", "subscribers[1].id"],
        ["sidecar.yaml:8", "subscribers[1].secret_file"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "webhooks: {timeout: 5, connect_timeout: 10s}",
        "fsm: {states: [READY, 1], initial: READY2, transitions: {STEADY: [GO]}}",
        "journal: {retention: 5}\nwebhooks: {max_lag: 1000000}",
        "store: {max_subscribers: none}\nsubscribers: [{id: a, url: http://h}]",
    ],
)
def test_a_value_that_cannot_be_read_has_no_further_consequences(problems, text):
    """No rule is applied to the default that stands in for it."""
    assert len(problems(text)) == 1


def test_the_list_of_problems_ends_somewhere(problems):
    """A file of another kind is not answered with thousands of lines."""
    found = problems("\n".join(f"key{n}: 1" for n in range(10_000)))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == f"sidecar.yaml: these are the first {MAX_PROBLEMS} problems; mend them to see the others"


# Whatever one can write


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,63}", fullmatch=True).filter(lambda name: name != "mro")
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True)
DURATIONS = st.floats(0.001, 365 * 86400).map(Seconds)
PATHS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).filter(lambda path: path != ":memory:")


@st.composite
def usable_fsm(draw):
    """A machine of any names."""
    states = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    some = st.lists(st.sampled_from(states), max_size=3).map(tuple)
    return Fsm(
        states=tuple(states),
        initial=draw(st.none() | st.sampled_from(states)),
        transitions=draw(st.none() | st.dictionaries(st.sampled_from(states), some)),
        enforcement=draw(st.sampled_from(Enforcement)).value,
    )


@given(
    fsm=usable_fsm(),
    path=PATHS,
    retry=st.lists(DURATIONS, min_size=1, max_size=4).map(tuple),
    ids=st.lists(IDS, max_size=4, unique=True),
    ratio=st.floats(0, 1),
    max_body=st.integers(1 << 10, 16 << 20),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_usable_configuration_can_be_printed_and_loaded_again(file, fsm, path, retry, ids, ratio, max_body):
    """Names, numbers and paths of any look come back as they were."""
    config = Config(
        fsm=fsm,
        writes=Writes(max_body_bytes=Bytes(max_body)),
        journal=Journal(path=path),
        webhooks=Webhooks(retry_seconds=retry),
        subscribers=tuple(Subscriber(id=each, url=f"http://{each.strip('-_')}.example/?{each}") for each in ids),
        health=Health(conflict_ratio=ratio),
    )
    assert load(file(effective(config))) == config


def known_keys(kind=Config):
    for field in msgspec.structs.fields(kind):
        yield field.encode_name
        if isinstance(field.default, Struct):
            yield from known_keys(type(field.default))


KEYS = sorted({*known_keys(), *known_keys(Subscriber), *known_keys(Token), "BOOTING", "IDLE", "nonsense"})
WORDS = [
    "BOOTING",
    "5s",
    "0s",
    "400d",
    "256KiB",
    "off",
    "none",
    "http://h",
    "127.0.0.1:8471",
    "unix:/x",
    "whsec_x",
    "a",
    "\u2028",
    "\x00",
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(WORDS)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=5),
    max_leaves=30,
)


def section_trees(kind=Config):
    """Trees that have the right sections, and anything in them."""
    parts, lists = {}, {key.rpartition(".")[2]: item for key, item in LISTS.items()}
    for field in msgspec.structs.fields(kind):
        inner = section_trees(type(field.default)) if isinstance(field.default, Struct) else TREES
        parts[field.encode_name] = (
            st.lists(section_trees(lists[field.encode_name]), max_size=3) if field.encode_name in lists else inner
        )
    return st.fixed_dictionaries({}, optional=parts)


def refusal_of(path):
    try:
        load(path)
    except ConfigError as refusal:
        return refusal
    return None


def loads_or_refuses(path):
    if refusal := refusal_of(path):
        assert refusal.problems
        assert all(problem.startswith(path) and "\n" not in problem for problem in refusal.problems)
        return
    config = load(path)
    Path(path).write_text(effective(config))
    assert load(path) == config
    machine = Machine.from_names(config.fsm.states, config.fsm.transitions, initial=config.fsm.initial)
    assert [state.name for state in machine.states] == list(config.fsm.states)


@given(tree=TREES | section_trees())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_tree_loads_or_is_refused(file, tree):
    """Never a traceback, and what loads can be printed and loaded again."""
    loads_or_refuses(file(json.dumps(tree)))


SNIPPETS = [
    *KEYS,
    *WORDS,
    ": ",
    "\n",
    "  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "!!str ",
    "? ",
    "| ",
    "> ",
    "'",
    '"',
    "\\",
    "---",
    "...",
    "%YAML 1.2",
    "\t",
    "#",
]


@given(text=st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=3), max_size=30).map("".join) | st.text() | st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
def test_any_text_loads_or_is_refused(file, parser, text):
    """Never a traceback, whichever parser PyYAML was built with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yamlfile, "_LOADER", getattr(yaml, parser))
        loads_or_refuses(file(text if isinstance(text, bytes) else text.encode(errors="surrogatepass")))
