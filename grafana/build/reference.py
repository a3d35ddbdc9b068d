"""The tables of docs/metrics.md, from the catalogue."""

from pathlib import Path

from sidecar.metrics import CATALOGUE, SECTIONS, Family, Label

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- catalogue: made by `make grafana` -->\n", "<!-- end of the catalogue -->\n"


def page() -> str:
    """The page with its tables as they have to be now."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{_tables()}\n{END}{after}"


def _tables() -> str:
    lines: list[str] = []
    for family in CATALOGUE:
        if family in SECTIONS:
            lines += ["", f"### {SECTIONS[family]}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        lines.append(f"| `{family.name}` | {_kind(family)} | {'; '.join(map(_label, family.labels))} | {family.help} |")
    return "\n".join(lines)


def _kind(family: Family) -> str:
    kind = f"{family.kind}, {family.unit}" if family.unit else family.kind
    return f"{kind} (debug)" if family.debug else kind


def _label(label: Label) -> str:
    values = ", ".join(f"`{value}`" for value in label.values)
    return f"`{label.name}`: {values or label.source}"
