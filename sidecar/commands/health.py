"""`fsm-sidecar health`: how the store is, as an exit code too."""

import argparse
from typing import TYPE_CHECKING

from sidecar.commands.connected import Commands, add, print_json
from sidecar.commands.terminal import clean, style

if TYPE_CHECKING:
    from sidecar.commands.asking import Api

_UNHEALTHY = 1


def add_command(commands: Commands) -> None:
    """`health`."""
    add(commands, "health", "tell how a running sidecar's store is; ends with 1 if it is unhealthy", _health)


def _health(api: "Api", options: argparse.Namespace) -> int:
    health = api.get("/v1/health")
    if options.json:
        print_json(health)
    else:
        print(style("healthy", "green") if health["healthy"] else style("unhealthy", "red"))
        for level, colour in (("issues", "red"), ("warnings", "yellow")):
            for message in health[level]:
                print(f"{style(level.removesuffix('s'), colour)}: {clean(message)}")
        numbers = health["metrics"]
        listeners = f"{numbers['subscriber_count']} of {numbers['max_subscribers']} subscribers"
        print(f"{numbers['current_state']}, version {numbers['current_version']}")
        print(f"{numbers['total_sets']} writes, {numbers['version_conflicts']} conflicts, {listeners}")
    return 0 if health["healthy"] else _UNHEALTHY
