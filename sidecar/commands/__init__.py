"""The command line as a client of a running sidecar: `state`, `subscribers`, `writer`, …; and completion for shells."""

import argparse

from sidecar.commands import completion, health, life, state, subscribers
from sidecar.commands.connected import Commands

# What is imported where it is used takes time that other commands need not spend.


def add_commands(commands: Commands, root: argparse.ArgumentParser) -> None:
    """Add them to the command line `root`; each one's `command` takes the options and gives an exit code."""
    state.add_commands(commands.add_parser("state", help="read, write and watch the state of a running sidecar"))
    subscribers.add_commands(
        commands.add_parser("subscribers", help="list, add, change, remove, resume and ping webhook subscribers")
    )
    life.add_commands(commands)
    health.add_command(commands)
    completion.add_command(commands, root)
