"""`fsm-sidecar heartbeat`, and `fsm-sidecar writer get | take`: for agents that are shell scripts."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from sidecar.commands.connected import Commands, add, add_writer_token, claim, given, print_json
from sidecar.commands.terminal import clean, moment

if TYPE_CHECKING:
    from sidecar.commands.asking import Api


def add_commands(commands: Commands) -> None:
    """`heartbeat` and `writer`."""
    beat = add(
        commands, "heartbeat", "say that the agent lives; its last will is written when the next one does not come", _beat
    )
    _add_ttl(beat, "when the next one has to come at the latest; as configured by default")
    add_writer_token(beat)
    writer = commands.add_parser("writer", help="tell who the writer is, and become it").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add(writer, "get", "tell who has the lease", _get)
    take = add(writer, "take", "become the writer, or stay it with its token; prints the token", _take)
    take.add_argument("name", metavar="NAME", help="who you are, such as the pod")
    _add_ttl(take, "how long for; as configured by default")
    take.add_argument("--takeover", action="store_true", help="also while another one has it, who cannot write from then on")
    add_writer_token(take)


def _add_ttl(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--ttl", metavar="TIME", help=help)


def _beat(api: "Api", options: argparse.Namespace) -> None:
    answer = api.ask("POST", "/v1/heartbeat", headers=claim(options), body=given(ttl=options.ttl)).json
    if options.json:
        print_json(answer)
    else:
        print(f"heard; the next one until {moment(answer['expires_at'])}")


def _get(api: "Api", options: argparse.Namespace) -> None:
    answer = api.get("/v1/writer")
    if options.json:
        print_json(answer)
        return
    print("only the writer may write" if answer["writers"] == "exclusive" else "others than the writer may write too")
    print(_about(answer["holder"]))


def _about(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "nobody has had the lease yet"
    name, until = clean(holder["name"]), moment(holder["expires_at"])
    if holder["expires_at"] < time.time():
        return f"the lease is free; {name} had it until {until}"
    return f"the writer is {name}, until {until}"


def _take(api: "Api", options: argparse.Namespace) -> None:
    body = {"name": options.name, "takeover": options.takeover} | given(ttl=options.ttl)
    lease = api.ask("POST", "/v1/writer", headers={} if options.takeover else claim(options), body=body).json
    print_json(lease) if options.json else print(lease["token"])
