"""The API's description of itself: complete, valid, the same in `docs/`, and its examples work."""

import json
import re
from pathlib import Path

import msgspec
import openapi_spec_validator
import pytest
from described import DOCUMENT, resolved, validator
from secrecy import token

from sidecar.api import documents
from sidecar.api.app import DEFINITIONS, ROUTES
from sidecar.api.examples import EXAMPLES
from sidecar.api.openapi import raised
from sidecar.api.problems import MEANINGS

ROOT = Path(__file__).parent.parent
STATES = ["UNSPECIFIED", "BOOTING", "IDLE", "ACTIVE", "ERROR_STATE", "SHUTDOWN"]
SHOWN = [each for each in DEFINITIONS if each.template.startswith("/v1/")]


def operations():
    return [(path, method, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()]


def names(values):
    return [f"{value.method} {value.template}" for value in values]


# --- the document ---


def test_it_is_valid():
    """By the meta-schema of OpenAPI 3.1 and the checks of openapi-spec-validator."""
    assert "3.1.0" == DOCUMENT["openapi"]
    openapi_spec_validator.OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_one_in_the_docs_is_the_newest():
    """Whoever changes the API sees the change of its description in review. `make openapi` writes it anew."""
    assert DOCUMENT == json.loads((ROOT / "docs" / "openapi.json").read_text())


def test_it_has_every_route():
    """Also HEAD, where a route answers it."""
    assert {(each.template, each.method.lower()) for each in SHOWN} == {(path, method) for path, method, _ in operations()}


@pytest.mark.parametrize("definition", SHOWN, ids=names(SHOWN))
def test_a_route_says_what_it_does_takes_and_answers(definition):
    """A new one cannot be added without: a docstring, its good answers, a body where there is one, what its path names."""
    assert definition.handler.__doc__
    assert {200, 201, 204} & {*definition.described.get("answers", {})}
    assert "body" in definition.described or definition.method not in ("PUT", "PATCH")
    assert {*re.findall(r"\{(\w+)\}", definition.template)} == {each.name for each in definition.takes if each.place == "path"}


def test_every_problem_can_be_had_somewhere():
    """None in the table of problems is left out, and no route names one that is not in it."""
    assert {*MEANINGS} == set().union(*(raised(each) for each in SHOWN))


def test_what_a_problem_carries_is_described():
    """Each member has its place in the schema."""
    carried = {name for meaning in MEANINGS.values() for name in meaning.carries}

    assert carried <= {field.name for field in msgspec.structs.fields(documents.Problem)}


def test_operations_have_names_of_their_own():
    """Generated clients call their methods by them."""
    ids = [operation["operationId"] for _, _, operation in operations()]

    assert len(ids) == len({*ids})


def test_the_table_of_routes_in_the_docs_is_that_of_the_api():
    """Every route has its row in docs/api.md, and the other way round."""
    text = (ROOT / "docs" / "api.md").read_text().partition("| route | does |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[A-Z]+ /v1/[^|]*) \|", text, re.MULTILINE)
    told = {tuple(route.split(" ")) for row in rows for route in re.findall(r"`([A-Z]+ [^?`]+)", row)}

    assert {(method, template) for template, method in ROUTES if template.startswith("/v1/")} == told


# --- what a sidecar serves ---


def test_a_sidecar_serves_it_with_the_states_of_its_machine(start, tmp_path):
    """Whatever the machine: a client knows which states it may ask for. All else is the same as in the docs."""
    (tmp_path / "token").write_text(token("reader"))
    (tmp_path / "token").chmod(0o600)
    tokens = [{"name": "reader", "file": str(tmp_path / "token"), "scopes": ["state:read"]}]
    sidecar = start(fsm={"states": ["CLOSED", "OPEN"], "initial": "CLOSED"}, api={"listen": "127.0.0.1:0", "tokens": tokens})
    answer = sidecar.api.get("/v1/openapi.json", authorization=f"Bearer {token('reader')}")
    served = answer.json

    assert "application/json" == answer.headers["Content-Type"]
    assert ["CLOSED", "OPEN"] == served["components"]["schemas"]["StateName"].pop("enum")
    assert DOCUMENT == served


def test_each_operation_names_the_scope_that_it_needs(start):
    """Where there are tokens; a sidecar without any says that none is needed."""
    scopes = {(each.template, each.method.lower()): [{"token": [each.scope]}] for each in SHOWN}
    open_to_all = start().api.get("/v1/openapi.json").json["paths"].values()

    assert scopes == {(path, method): operation["security"] for path, method, operation in operations()}
    assert [] == [operation for methods in open_to_all for operation in methods.values() if operation["security"]]


def test_it_names_no_host(start):
    """Behind any proxy and port forwarding its relative server is the one that gave it."""
    assert [{"url": "/"}] == start().api.get("/v1/openapi.json").json["servers"]


# --- examples ---


def bodies():
    for path, method, operation in operations():
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield from (
                pytest.param(method.upper(), path, media, example["value"], id=f"{method.upper()} {path}: {name}")
                for name, example in content.get("examples", {}).items()
            )


@pytest.mark.parametrize(("method", "path", "media", "body"), list(bodies()))
def test_an_example_of_a_body_can_be_sent(start, hook, method, path, media, body):
    """As it is in the document, to a sidecar whose agent is IDLE. Only endpoints are replaced, by one that is there."""
    sidecar = start(fsm={"initial": "IDLE"})
    sent = body | {"url": hook.url} if "url" in body else body
    answer = sidecar.api.ask(method, path.replace("{id}", "console"), sent, content_type=media)

    assert answer.status in (200, 201), answer
    schema = DOCUMENT["paths"][path][method.lower()]["requestBody"]["content"][media]["schema"]
    validator(schema).validate(body)


def test_every_body_has_an_example():
    """Who reads the document sees at once what to send."""
    assert [] == [each.template for each in SHOWN if "body" in each.described and each.described["body"].kind not in EXAMPLES]


def test_examples_of_answers_are_of_their_schema():
    """Field for field."""
    contents = [
        content
        for _, _, operation in operations()
        for response in operation["responses"].values()
        for content in resolved(response).get("content", {}).values()
        if "examples" in content
    ]

    assert contents
    for content in contents:
        for example in content["examples"].values():
            validator(content["schema"]).validate(example["value"])


# --- OPTIONS ---


@pytest.mark.parametrize("path", ["/v1/state", "/v1/journal/backup", "/v1/subscribers/{id}"])
def test_options_tell_the_methods(start, path):
    """204, and the header Allow: exactly the methods of the description, and OPTIONS itself."""
    answer = start().api.ask("OPTIONS", path.replace("{id}", "console"))

    assert (204, b"") == (answer.status, answer.body)
    assert {*DOCUMENT["paths"][path], "options"} == {*answer.headers["Allow"].lower().split(", ")}
