"""`values.schema.json`: what `values.schema.yaml` says of the chart, and of `config` what the sidecar's own structs say."""

import inspect
import json
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import yaml

from sidecar.config.sections import Config, Struct, Subscriber
from sidecar.units import Bytes, Listen, Seconds

FILE = Path(__file__).parents[1] / "fsm-sidecar" / "values.schema.json"
CHART = Path(__file__).with_name("values.schema.yaml")

Schema = dict[str, Any]

LEAVES: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Seconds: {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"},
    Bytes: {"type": "string", "pattern": "^[0-9]{1,18}(B|KiB|MiB|GiB)$"},
    Listen: {"type": "string", "pattern": "^(unix:/.+|.+:[0-9]{1,5})$"},
}


def text() -> str:
    """The schema as JSON."""
    schema = yaml.safe_load(CHART.read_text())
    schema["properties"]["config"] = _section(Config)
    return json.dumps(schema, indent=2) + "\n"


def _section(kind: type[Struct]) -> Schema:
    fields = msgspec.structs.fields(kind)
    schema: Schema = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {field.encode_name: _schema(field.type) for field in fields},
    }
    if required := [field.encode_name for field in fields if field.required]:
        schema["required"] = required
    if kind is Subscriber:
        # As Helm reads the key `on`. The chart writes it as it was meant.
        schema["type"] = "object"
        schema["properties"]["true"] = schema["properties"]["on"]
    return schema


def _schema(kind: Any) -> Schema:
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *rules = get_args(kind)
        schema = _schema(inner)
        for rule in rules:
            schema |= _bounds(rule, schema)
        return schema
    if origin in (Union, UnionType):
        return _nullable(_schema(get_args(kind)[0]))
    if origin is Literal:
        # As Helm reads `off`. The chart writes it as it was meant.
        return {"enum": [*get_args(kind), *([False] if "off" in get_args(kind) else [])]}
    if origin is tuple:
        items = get_args(kind)[0]
        empty = isinstance(items, type) and issubclass(items, Struct)  # such a list may be there and hold nothing
        return {"type": ["array", "null"] if empty else "array", "items": _schema(items)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(get_args(kind)[1])}
    return _section(kind) if issubclass(kind, Struct) else dict(LEAVES[kind])


def _nullable(schema: Schema) -> Schema:
    kind = schema["type"]
    return schema if isinstance(kind, list) else schema | {"type": [kind, "null"]}  # a section may always be null


def _bounds(rule: Any, schema: Schema) -> Schema:
    """What a rule of the sidecar says, in words of JSON Schema. What it does not find here, the sidecar checks at its start."""
    known = inspect.getclosurevars(rule)
    low, high = known.nonlocals.get("low"), known.nonlocals.get("high")
    if low is not None:
        kinds = schema["type"]
        kind = kinds if isinstance(kinds, str) else kinds[0]
        if kind == "string":  # a duration or a size, which JSON Schema cannot compare
            return {}
        least, most = {
            "array": ("minItems", "maxItems"),
            "object": ("minProperties", "maxProperties"),
        }.get(kind, ("minimum", "maximum"))
        return {least: low} | ({} if high is None else {most: high})
    patterns = [value.pattern for value in known.globals.values() if isinstance(value, re.Pattern)]
    return {"pattern": f"^({_portable(patterns[0])})$"} if patterns else {}


def _portable(pattern: str) -> str:
    """Without what only Python's regular expressions have: names of groups, and `(?i:…)`."""
    return re.sub(r"\(\?P<\w+>", "(", pattern).replace("(?i:https?)", "[Hh][Tt][Tt][Pp][Ss]?")
