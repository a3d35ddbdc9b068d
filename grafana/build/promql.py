"""PromQL for panels: whose series, whose rate, whose share. Families of the catalogue, never names in text."""

from sidecar.metrics import AGENT, BUILD, STATE, Family

VARIABLES = ("cluster", "namespace", "pod", "instance")
"""What a panel is narrowed down by. Together they name one sidecar, also where some of them are absent."""

K = ", ".join(VARIABLES)
WHO = "{{pod}} {{instance}}"
ONE_SECOND = 'le=~"1(\\\\.0)?"'  # Prometheus 2 keeps the 1.0 that the sidecar writes, Prometheus 3 makes it 1
INTERVAL = "$__rate_interval"
RANGE = "$__range"


def chosen(*names: str) -> str:
    """The matchers that these variables make."""
    return ",".join(f'{name}=~"${name}"' for name in names)


def of(name: Family | str, *matchers: str) -> str:
    """The selected series of a family, or of a metric that is not ours."""
    name = name if isinstance(name, str) else name.name
    return f"{name}{{{','.join((chosen(*VARIABLES), *matchers))}}}"


def rate(family: Family | str, *matchers: str, over: str = INTERVAL) -> str:
    """How much it rises in a second."""
    return f"rate({of(family, *matchers)}[{over}])"


def increase(family: Family | str, *matchers: str, over: str = RANGE) -> str:
    """By how much it rose."""
    return f"increase({of(family, *matchers)}[{over}])"


def total(expr: str, *by: str) -> str:
    """The sum, by these labels."""
    return _aggregate("sum", expr, by)


def largest(expr: str, *by: str) -> str:
    """The largest, by these labels. For gauges: one that two jobs scrape is still one."""
    return _aggregate("max", expr, by)


def each(expr: str, *by: str) -> str:
    """The largest of each sidecar, by these labels besides."""
    return largest(expr, *VARIABLES, *by)


def sum_each(expr: str, *by: str) -> str:
    """The sum of each sidecar, by these labels besides."""
    return total(expr, *VARIABLES, *by)


def _aggregate(how: str, expr: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)}) ({expr})" if by else f"{how}({expr})"


def quantile(share: float, histogram: Family, *by: str, over: str = INTERVAL) -> str:
    """So much of what was observed took no longer."""
    return f"histogram_quantile({share}, {total(rate(f'{histogram.name}_bucket', over=over), *by, 'le')})"


def within_a_second(histogram: Family, over: str, *by: str) -> str:
    """The share of what was observed that took at most a second."""
    part = total(increase(f"{histogram.name}_bucket", ONE_SECOND, over=over), *by)
    return f"{part} / ({total(increase(f'{histogram.name}_count', over=over), *by)} > 0)"


def age(family: Family, *by: str) -> str:
    """Seconds since the instant that a gauge holds; nothing where it never was."""
    return f"time() - {each(f'{of(family)} > 0', *by)}"


def ours(expr: str) -> str:
    """Only those of sidecars, where any process has such a metric."""
    return f"{expr} and on ({K}) {of(BUILD)}"


def seen(expr: str) -> str:
    """Only those of sidecars that are there, or were within the hour."""
    return f"{expr} and on ({K}) last_over_time({of(BUILD)}[1h])"


def state_names() -> str:
    """One series for each sidecar at each moment, labelled with its state (of one that is silent: `no data`) and with `who`.

    `who` is there where `pod` is not; Grafana would show the name of a label that is absent.
    """
    current = f"{of(STATE)} == 1"
    unset = f"{of(AGENT)} unless on ({K}) ({current})"
    silent = f"last_over_time({of(AGENT)}[1h]) unless on ({K}) {of(AGENT)}"
    any_of_them = f"{each(current, 'state')} or {_named(each(unset), 'none yet')} or {_named(each(silent), 'no data')}"
    return f'label_join({any_of_them}, "who", " ", "pod", "instance")'


def _named(expr: str, state: str) -> str:
    return f'label_replace({expr}, "state", "{state}", "", "")'
