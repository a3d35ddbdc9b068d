"""What colours mean, and how values are written. Red is for what has to be mended, orange for what may have to be."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import dashboard as models

from sidecar.alerts import settings

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "#8e8e8e"
NEUTRAL = "text"

Steps = Sequence[tuple[float, str]]
Mappings = list[models.ValueMapping]
Values = Mapping[str, tuple[str | None, str]]

ALERTS = settings.load().alerts
"""When the alerts fire, as shipped: there the colours change, too."""

BAD_ABOVE_ZERO: Steps = ((1, RED),)
WARN_ABOVE_ZERO: Steps = ((1, ORANGE),)
LAG: Steps = ((10, ORANGE), (ALERTS["SubscriberLagging"].above, RED))
NEAR_LIMIT: Steps = ((ALERTS["SubscribersNearLimit"].above, ORANGE), (0.95, RED))

_DEFAULT_STATES = {
    "UNSPECIFIED": GREY,
    "BOOTING": "light-blue",
    "IDLE": "semi-dark-green",
    "ACTIVE": "blue",
    "ERROR_STATE": RED,
    "SHUTDOWN": "dark-purple",
    "none yet": YELLOW,
    "no data": GREY,
}
_FAULTS = "/ERR|FAULT|FAIL|CRASH|PANIC|EMERGENCY|ABORT/i"
_BY_LETTER = {
    "AGMSY_": "semi-dark-green",
    "BHNTZ": "light-blue",
    "CIOU": "blue",
    "DJPV": "dark-purple",
    "EKQW": "light-yellow",
    "FLRX": "light-green",
}


def thresholds(steps: Steps, base: str) -> ThresholdsConfig:
    """From each value on its colour; below the first one the base's."""
    first = models.Threshold(value=None, color=base)
    return (
        ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([first, *(models.Threshold(value=float(value), color=color) for value, color in steps)])
    )


def words(values: Values) -> Mappings:
    """Value → word and colour; without a word only the colour."""
    return [
        models.ValueMap(
            options={
                value: models.ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(values.items())
            }
        )
    ]


YES_NO = words({"1": ("yes", GREEN), "0": ("no", RED)})
HEALTH = words({"1": ("well", GREEN), "0": ("failing", RED)})
FIRING_OR_QUIET = words({"1": ("firing", RED), "0": ("quiet", GREEN)})
NEVER = words({"0": ("never", GREY)})
NO_VERSION = words({"-1": ("none yet", YELLOW)})


def state_colours() -> Mappings:
    """The default states by name; of any other machine, those that sound like a fault red, the rest by a letter.

    It is the fourth from the end: names of one machine often begin alike (AUTO_…) and end alike (…ING).
    """
    named = words({state: (None, color) for state, color in _DEFAULT_STATES.items()})
    patterns = {_FAULTS: RED} | {f"/[{letters}].{{3}}$/i": color for letters, color in _BY_LETTER.items()} | {"/./": BLUE}
    return named + [
        models.RegexMap(
            options=models.DashboardRegexMapOptions(
                pattern=pattern, result=models.ValueMappingResult(color=color, index=len(_DEFAULT_STATES) + index)
            )
        )
        for index, (pattern, color) in enumerate(patterns.items())
    ]
