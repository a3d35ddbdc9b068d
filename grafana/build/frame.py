"""What all dashboards share: how they look and refresh, their variables, their annotations, and the links between them."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import DataSourceRef

from grafana.build import promql
from grafana.build.promql import WHO
from sidecar.metrics import AGENT, BUILD, STATE, STATE_ENTERED, SUBSCRIBER_LAG

TAG = "fsm-sidecar"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
EVERYTHING = ".*"

FLEET, AGENT_DETAIL, WEBHOOKS = "fsm-fleet", "fsm-agent", "fsm-webhooks"
FIRING = promql.of("ALERTS", 'alertname=~"FsmSidecar.*"', 'alertstate="firing"')


def dashboard(uid: str, title: str, description: str, *, marks: bool, subscriber: bool = False) -> builders.Dashboard:
    """An empty dashboard. `marks`: whether single transitions are marked from the start."""
    board = (
        builders.Dashboard(f"FSM sidecar / {title}")
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("utc")
        .time("now-3h", "now")
        .refresh("1m")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(_links())
    )
    for variable in _variables(subscriber):
        board.with_variable(variable)
    for annotation in _annotations(marks):
        board.annotation(annotation)
    return board


def _links() -> builders.DashboardLink:
    return (
        builders.DashboardLink("FSM sidecar")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )


def address(uid: str, **chosen: str) -> str:
    """A dashboard's address, for the same time, cluster and namespace. `chosen`: more variables, by their values.

    Values of labels that may be absent do not belong there: Grafana would send what it could not replace.
    """
    kept = "${datasource:queryparam}&${cluster:queryparam}&${namespace:queryparam}&${__url_time_range}"
    return f"/d/{uid}?{kept}{''.join(f'&var-{name}={value}' for name, value in chosen.items())}"


def _variables(subscriber: bool) -> list[builders.QueryVariable | builders.DatasourceVariable]:
    """Each is narrowed down by those before it. All instances are those of the chosen agents, not whatever there is."""
    datasource = builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    chosen = [
        _choice("cluster", "Cluster", BUILD.name),
        _choice("namespace", "Namespace", f"{BUILD.name}{{{promql.chosen('cluster')}}}"),
        _choice("agent", "Agent", f"{AGENT.name}{{{promql.chosen('cluster', 'namespace')}}}"),
        _choice("pod", "Pod", f"{AGENT.name}{{{promql.chosen('cluster', 'namespace', 'agent')}}}"),
        _choice(
            "instance", "Instance", f"{AGENT.name}{{{promql.chosen('cluster', 'namespace', 'agent', 'pod')}}}", listed=True
        ),
    ]
    if subscriber:
        chosen.append(_choice("subscriber", "Subscriber", promql.of(SUBSCRIBER_LAG)))
    return [datasource, *chosen]


def _choice(label: str, title: str, selector: str, *, listed: bool = False) -> builders.QueryVariable:
    """The label's values. All: everything, also where the label is absent; `listed`: exactly those found."""
    query = f"label_values({selector}, {label})"
    variable = (
        builders.QueryVariable(label)
        .label(title)
        .datasource(SOURCE)
        .query({"query": query, "refId": f"variable-{label}"})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return variable if listed else variable.all_value(EVERYTHING)


def _annotations(marks: bool) -> list[builders.AnnotationQuery]:
    entered = f"{promql.each(f'{promql.of(STATE)} == 1', 'state')} * on ({promql.K}) group_left () "
    entered += f"{promql.each(f'{promql.of(STATE_ENTERED)} > 0')} * 1000"
    started = f"{promql.each(promql.ours(promql.of('process_start_time_seconds')))} * 1000"
    versions = promql.total(promql.of(BUILD), "version")
    before = promql.total(f"{promql.of(BUILD)} offset 5m", "version")
    return [
        _annotation("State transitions", entered, f"{{{{state}}}} · {WHO}", "blue", shown=marks).use_value_for_time(True),
        _annotation("Restarts", started, f"started · {WHO}", "purple").use_value_for_time(True),
        _annotation("Rollouts", f"{versions} unless {before}", "version {{version}}", "green"),
        _annotation("Alerts", promql.each(FIRING, "alertname", "severity"), f"{{{{alertname}}}} · {WHO}", "red"),
    ]


def _annotation(name: str, expr: str, text: str, color: str, *, shown: bool = True) -> builders.AnnotationQuery:
    annotation = builders.AnnotationQuery().name(name).datasource(SOURCE).expr(expr).enable(shown).icon_color(color)
    return annotation.title_format(name).text_format(text)
