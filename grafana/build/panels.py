"""Panels: one readable call each. Title, description and unit first, then what is asked."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, statetimeline, text, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as looks_of
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from grafana.build import promql
from grafana.build.frame import AGENT_DETAIL, SOURCE, address
from grafana.build.looks import GREEN, NEUTRAL, Mappings, Steps, state_colours, thresholds

SCRAPE_INTERVAL = "15s"

Builder = Any  # the builders of the SDK have no common base that a type could name


class Query(NamedTuple):
    """What is asked, and how its series are named. `exemplar`: with the points that lead to single events."""

    expr: str
    legend: str = promql.WHO
    exemplar: bool = False


def queries(
    asked: Sequence[Query], *, instant: bool = False, kind: PromQueryFormat = PromQueryFormat.TIME_SERIES
) -> list[Builder]:
    """The targets of a panel, lettered from A."""
    return [_target(letter, query, instant, kind) for letter, query in zip(_letters(), asked, strict=False)]


def _letters() -> Iterator[str]:
    yield from "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _target(letter: str, query: Query, instant: bool, kind: PromQueryFormat) -> Builder:
    target = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expr).legend_format(query.legend).format(kind)
    if query.exemplar:
        target.exemplar(True)
    return target.instant() if instant else target.range()


def framed(panel: Builder, title: str, description: str, unit: str, width: int, height: int) -> Builder:
    """What every panel has."""
    return panel.title(title).description(description).unit(unit).datasource(SOURCE).span(width).height(height)


def stat_of(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    steps: Steps = (),
    base: str = NEUTRAL,
    mappings: Mappings | None = None,
    name: bool = False,
    width: int = 4,
    decimals: int | None = None,
    links: Sequence[builders.DashboardLink] = (),
) -> Builder:
    """One number, as it is now. `name`: the series' name in its place."""
    panel = framed(stat.Panel(), title, description, unit, width, 4).targets(queries([query], instant=True))
    panel.thresholds(thresholds(steps, GREEN if steps and base == NEUTRAL else base)).mappings(mappings or [])
    panel.text_mode(looks_of.BigValueTextMode.NAME if name else looks_of.BigValueTextMode.VALUE)
    panel.color_mode(looks_of.BigValueColorMode.VALUE).graph_mode(looks_of.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if links:
        panel.data_links(list(links))
    return panel if decimals is None else panel.decimals(decimals)


def graph(
    title: str,
    description: str,
    unit: str,
    *asked: Query,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    lines: Steps = (),
    most: float | None = None,
    red: str | None = None,
    dashed: str | None = None,
    agent_link: bool = False,
) -> Builder:
    """Curves over time. `lines`: thresholds drawn across. `red`, `dashed`: patterns of series that are bad, or are limits."""
    panel = framed(timeseries.Panel(), title, description, unit, width, height).targets(queries(asked)).min(0)
    panel.interval(SCRAPE_INTERVAL).fill_opacity(30 if stacked else 5).line_width(1).show_points(looks_of.VisibilityMode.NEVER)
    panel.legend(
        common.VizLegendOptions().show_legend(True).placement(looks_of.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    )
    panel.tooltip(common.VizTooltipOptions().mode(looks_of.TooltipDisplayMode.MULTI).sort(looks_of.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks_of.StackingMode.NORMAL).group("A"))
    if lines:
        panel.thresholds(thresholds(lines, "transparent"))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks_of.GraphThresholdsStyleMode.DASHED))
    if most is not None:
        panel.max(most)
    if red:
        panel.override_by_regexp(red, [override("color", {"mode": "fixed", "fixedColor": "red"})])
    if dashed:
        panel.override_by_regexp(
            dashed,
            [
                override("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
                override("custom.fillOpacity", 0),
                override("custom.stacking", {"mode": "none", "group": "A"}),
                override("color", {"mode": "fixed", "fixedColor": "orange"}),
            ],
        )
    if agent_link:
        panel.data_links([open_agent()])
    return panel


def bars(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    steps: Steps = (),
    width: int = 8,
    height: int = 8,
    links: bool = True,
) -> Builder:
    """What holds now, as bars. `links`: that lead to the agent."""
    panel = framed(bargauge.Panel(), title, description, unit, width, height).targets(queries([query], instant=True))
    panel.orientation(looks_of.VizOrientation.HORIZONTAL).display_mode(looks_of.BarGaugeDisplayMode.BASIC).min(0)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(thresholds(steps, GREEN))
    return panel.data_links([open_agent()]) if links else panel


def states(title: str, description: str, *, height: int = 9) -> Builder:
    """A row for each sidecar, with the names of its states, whatever its machine calls them.

    PromQL gives numbers only: the names come from the label, as a table cut up by sidecar.
    """
    sidecar = [*promql.VARIABLES, "who"]
    panel = framed(statetimeline.Panel(), title, description, "string", 24, height).interval(SCRAPE_INTERVAL)
    panel.targets(queries([Query(promql.state_names())], kind=PromQueryFormat.TABLE))
    panel.transformations(
        [
            transformation("sortBy", fields={}, sort=[{"field": "Time", "desc": False}]),
            transformation("filterFieldsByName", include={"names": ["Time", "state", *sidecar]}),
            transformation("partitionByValues", fields=sidecar, naming={"asLabels": True}, keepFields=False),
        ]
    )
    panel.display_name("${__field.labels.who}").mappings(state_colours())
    return _timeline(panel).data_links([open_agent()])


def timeline(title: str, description: str, query: Query, mappings: Mappings, *, width: int = 24, height: int = 6) -> Builder:
    """A row for each series, its values as words. What is silent is left blank."""
    panel = framed(statetimeline.Panel(), title, description, "short", width, height).interval(SCRAPE_INTERVAL)
    return _timeline(panel.targets(queries([query])).mappings(mappings))


def _timeline(panel: Builder) -> Builder:
    panel.merge_values(True).show_value(looks_of.VisibilityMode.AUTO).span_nulls(False).row_height(0.85).fill_opacity(80)
    return panel.per_page(20).legend(
        common.VizLegendOptions().show_legend(False).display_mode(looks_of.LegendDisplayMode.HIDDEN)
    )


def heat_map(title: str, description: str, query: Query, *, width: int = 12, height: int = 8) -> Builder:
    """How many took how long, over time."""
    panel = framed(heatmap.Panel(), title, description, "s", width, height).interval(SCRAPE_INTERVAL)
    panel.targets(queries([query], kind=PromQueryFormat.HEATMAP)).calculate(False)
    panel.y_axis(heatmap.YAxisConfig().unit("s")).cell_values(heatmap.CellValues().unit("short"))
    return panel.color(heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))


def note(title: str, description: str, markdown: str, *, width: int = 24, height: int = 6) -> Builder:
    """Words."""
    panel = text.Panel().title(title).description(description).span(width).height(height)
    return panel.mode(TextMode.MARKDOWN).content(markdown)


def row(title: str, *panels: Builder) -> Builder:
    """A row that is folded up until somebody wants it."""
    folded = builders.Row(title).collapsed(True)
    for panel in panels:
        folded.with_panel(panel)
    return folded


def open_agent(instance: str = "${__field.labels.instance}") -> builders.DashboardLink:
    """The way from a series, or a line of a table, to its agent."""
    return builders.DashboardLink("Open this agent").url(address(AGENT_DETAIL, instance=instance))


def transformation(name: str, **options: Any) -> models.DataTransformerConfig:
    """One step between what Prometheus answers and what is drawn."""
    return models.DataTransformerConfig(id_val=name, options=options)


def override(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)
