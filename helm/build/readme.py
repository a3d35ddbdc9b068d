"""The tables in the chart's README, from the comments in `values.yaml`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).parents[1] / "fsm-sidecar"
FILE = CHART / "README.md"
VALUES = CHART / "values.yaml"
BEGIN, END = "<!-- values: made by `make chart` from values.yaml -->\n", "<!-- end of the values -->\n"


class Value(NamedTuple):
    """One row: a value, or a branch of them."""

    key: str
    default: str
    meaning: str


def text() -> str:
    """The README with its table as it has to be now."""
    before, _, rest = FILE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [f"| `{value.key}` | {value.default} | {value.meaning} |" for value in values()]
    return "\n".join([f"{before}{BEGIN}", "| value | default | meaning |", "|---|---|---|", *rows, f"\n{END}{after}"])


def values() -> list[Value]:
    """In the order of the file."""
    source = VALUES.read_text()
    return list(_walk(yaml.compose(source), source.splitlines(), ""))


def _walk(node: yaml.Node, lines: list[str], above: str) -> Iterator[Value]:
    for key, value in node.value:
        name, meaning = f"{above}{key.value}", _comment(lines, key.start_mark.line)
        branch = isinstance(value, yaml.MappingNode) and not value.flow_style
        below = list(_walk(value, lines, f"{name}.")) if branch else []
        if any(each.meaning for each in below):
            yield from [Value(name, "", meaning)] if meaning else []
            yield from below
        else:
            yield Value(name, _written(value), meaning)  # also a branch that is explained as a whole


def _comment(lines: list[str], line: int) -> str:
    """What stands right above the key."""
    words: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        words.insert(0, lines[line].strip().lstrip("# "))
    return " ".join(words)


def _written(node: yaml.Node) -> str:
    return f"`{json.dumps(yaml.safe_load(yaml.serialize(node)))}`"
