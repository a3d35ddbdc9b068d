"""Tables: lines are joined from one query for each column, on the labels that they share."""

from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.models import common as looks_of
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.build.frame import address
from grafana.build.looks import NEUTRAL, Mappings, Steps, state_colours, thresholds
from grafana.build.panels import Builder, Query, framed, override, queries, transformation
from grafana.build.promql import VARIABLES


class Column(NamedTuple):
    """A column of numbers: its head, what is asked, and how it is written. An empty head: only its labels matter."""

    head: str
    expr: str
    unit: str = "short"
    steps: Steps = ()
    mappings: Mappings | None = None
    decimals: int | None = None


class Link(NamedTuple):
    """From the cells of a column (a label) to a dashboard, with the cell as the value of that variable."""

    label: str
    title: str
    uid: str


def table_of(
    title: str,
    description: str,
    *columns: Column,
    labels: Sequence[str] = (),
    sort: str | None = None,
    links: Sequence[Link] = (),
    width: int = 24,
    height: int = 8,
) -> Builder:
    """What holds now, a line for each combination of labels. `labels`: those to show first, before the sidecar's own."""
    panel = framed(table.Panel(), title, description, "short", width, height).show_header(True)
    panel.targets(queries([Query(column.expr, "") for column in columns], instant=True, kind=PromQueryFormat.TABLE))
    panel.transformations([transformation("merge"), _in_order(columns, labels)])
    for column in columns:
        if column.head:
            panel.override_by_name(column.head, _written(column))
    if "state" in labels:
        panel.override_by_name("state", [override("mappings", state_colours()), _coloured()])
    for link in links:
        url = address(link.uid, **{link.label: "${__value.raw}"})
        if link.label != "instance":
            url += "&var-instance=${__data.fields.instance}"
        panel.override_by_name(link.label, [override("links", [{"title": link.title, "url": url}])])
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    return panel


def matrix(title: str, description: str, expr: str, *, row: str, column: str, width: int = 12, height: int = 8) -> Builder:
    """One label down, another across, and how often both together."""
    panel = framed(table.Panel(), title, description, "short", width, height).show_header(True).decimals(0)
    panel.targets(queries([Query(expr, "")], instant=True, kind=PromQueryFormat.TABLE))
    panel.transformations(
        [transformation("groupingToMatrix", rowField=row, columnField=column, valueField="Value", emptyValue="zero")]
    )
    panel.thresholds(thresholds(((1, "semi-dark-blue"),), "transparent"))
    return panel.cell_options(looks_of.TableColoredBackgroundCellOptions(mode=looks_of.TableCellBackgroundDisplayMode.BASIC))


def _in_order(columns: Sequence[Column], labels: Sequence[str]) -> object:
    """Grafana calls a value `Value`, and `Value #A` where there are several."""
    called = ["Value"] if len(columns) == 1 else [f"Value #{chr(ord('A') + index)}" for index in range(len(columns))]
    heads = {name: column.head for name, column in zip(called, columns, strict=True)}
    order = [*labels, *(each for each in VARIABLES if each not in labels), *heads]
    return transformation(
        "organize",
        excludeByName={"Time": True} | {name: True for name, head in heads.items() if not head},
        indexByName={name: index for index, name in enumerate(order)},
        renameByName={name: head for name, head in heads.items() if head},
    )


def _written(column: Column) -> list[object]:
    properties = [override("unit", column.unit)]
    if column.decimals is not None:
        properties.append(override("decimals", column.decimals))
    if column.mappings:
        properties.append(override("mappings", column.mappings))
    if column.steps:
        properties.append(override("thresholds", thresholds(column.steps, NEUTRAL).build()))
    if column.steps or column.mappings:
        properties.append(_coloured())
    return properties


def _coloured() -> object:
    return override("custom.cellOptions", {"type": "color-text"})
