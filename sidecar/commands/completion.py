"""`fsm-sidecar completion bash | zsh | fish`: a script for the shell, made from the command line itself."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sidecar.commands.connected import Commands

_SHELLS = ("bash", "zsh", "fish")

_ABOUT = """Print a script that completes commands and flags. bash: `source <(fsm-sidecar completion bash)` in ~/.bashrc; zsh:
save it as _fsm-sidecar in a folder of $fpath; fish: save it as ~/.config/fish/completions/fsm-sidecar.fish."""


def add_command(commands: Commands, root: argparse.ArgumentParser) -> None:
    """`completion`, of all that `root` has."""
    added = commands.add_parser("completion", help="print a script that completes commands in your shell", description=_ABOUT)
    added.add_argument("shell", choices=_SHELLS)
    added.set_defaults(command=lambda options: _completion(root, options.shell))


def _completion(root: argparse.ArgumentParser, shell: str) -> None:
    places = list(_places(root, ""))
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](places), end="")


class _Flag(NamedTuple):
    name: str
    help: str
    takes_value: bool
    choices: Sequence[str]


class _Place(NamedTuple):
    """Where the command line can be: `at` is what was given so far, such as ` state get`; and what may come next."""

    at: str
    commands: Sequence[tuple[str, str]]
    choices: Sequence[str]
    flags: Sequence[_Flag]


def _places(parser: argparse.ArgumentParser, at: str) -> Iterator[_Place]:
    commands: list[tuple[str, str]] = []
    choices: list[str] = []
    flags: list[_Flag] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            commands += [(name, helps.get(name, "")) for name in action.choices]
            below += action.choices.items()
        elif action.option_strings:
            options = tuple(map(str, action.choices or ()))
            flags.append(_Flag(action.option_strings[-1], _plain(action.help), action.nargs != 0, options))
        elif action.choices:
            choices += map(str, action.choices)
    yield _Place(at, [(name, _plain(help)) for name, help in commands], choices, flags)
    for name, child in below:
        yield from _places(child, f"{at} {name}")


def _plain(text: str | None) -> str:
    return (text or "").replace("'", "’").replace("\\", "").replace("`", "").replace("%%", "%")


def _quoted(texts: Iterable[str]) -> str:
    return " ".join(f"'{text}'" for text in texts)


def _joined(names: Iterable[str]) -> str:
    return f"'{' '.join(names)}'"


def _deeper(places: Sequence[_Place]) -> str:
    return "|".join(f'"{place.at}"' for place in places[1:])


def _flags_with_values(places: Sequence[_Place]) -> tuple[list[str], dict[str, Sequence[str]]]:
    flags = {flag.name: flag.choices for place in places for flag in place.flags if flag.takes_value}
    return [name for name, choices in flags.items() if not choices], {name: own for name, own in flags.items() if own}


def _bash(places: Sequence[_Place]) -> str:
    free, chosen = _flags_with_values(places)
    lines = [
        "_fsm_sidecar() {",
        '  local current="${COMP_WORDS[COMP_CWORD]}" at="" found="" flags="" word',
        '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        f'    case "$at $word" in {_deeper(places)}) at="$at $word" ;; esac',
        "  done",
        '  case "$at" in',
        *(f'    "{place.at}") found={_joined(_names(place))} flags={_joined(_flags(place))} ;;' for place in places),
        "  esac",
        '  case "$current" in -*) found="$flags" ;; esac',
        '  case "${COMP_WORDS[COMP_CWORD-1]}" in',
        *(f"    {name}) found={_joined(own)} ;;" for name, own in chosen.items()),
        f"    {'|'.join(free)}) found='' ;;",
        "  esac",
        '  COMPREPLY=($(compgen -W "$found" -- "$current"))',
        "}",
        "complete -o default -F _fsm_sidecar fsm-sidecar  # default: files, where nothing else fits",
    ]
    return "\n".join(lines) + "\n"


def _names(place: _Place) -> list[str]:
    return [*(name for name, _ in place.commands), *place.choices]


def _flags(place: _Place) -> list[str]:
    return [flag.name for flag in place.flags]


def _zsh(places: Sequence[_Place]) -> str:
    free, chosen = _flags_with_values(places)
    lines = [
        "#compdef fsm-sidecar",
        "_fsm_sidecar() {",
        '  local at="" word',
        "  local -a found flags",
        '  for word in "${(@)words[2,CURRENT-1]}"; do',
        f'    case "$at $word" in ({_deeper(places)}) at="$at $word" ;; esac',
        "  done",
        '  case "$at" in',
        *(f'    ("{place.at}") found=({_named(place)}) flags=({_described(place)}) ;;' for place in places),
        "  esac",
        '  case "${words[CURRENT]}" in (-*) found=("${flags[@]}") ;; esac',
        '  case "${words[CURRENT-1]}" in',
        *(f"    ({name}) found=({_quoted(own)}) ;;" for name, own in chosen.items()),
        f"    ({'|'.join(free)}) found=() ;;",
        "  esac",
        "  if (( $#found )); then _describe -o fsm-sidecar found; else _files; fi",
        "}",
        'if [ "$funcstack[1]" = "_fsm-sidecar" ]; then _fsm_sidecar; else compdef _fsm_sidecar fsm-sidecar; fi',
    ]
    return "\n".join(lines) + "\n"


def _named(place: _Place) -> str:
    return _quoted([*(f"{name}:{help}" for name, help in place.commands), *place.choices])


def _described(place: _Place) -> str:
    return _quoted(f"{flag.name}:{flag.help}" for flag in place.flags)


def _fish(places: Sequence[_Place]) -> str:
    lines = [
        "function __fsm_sidecar_at",
        "    set -l at",
        "    for word in (commandline -opc)[2..-1]",
        '        switch "$at $word"',
        f"            case {_deeper(places).replace('|', ' ')}",
        '                set at "$at $word"',
        "        end",
        "    end",
        '    test "$at" = "$argv[1]"',
        "end",
    ]
    for place in places:
        begin = f"complete -c fsm-sidecar -n '__fsm_sidecar_at \"{place.at}\"'"
        lines += [f"{begin} -f -a {name} -d '{help}'" for name, help in place.commands]
        lines += [f"{begin} -f -a '{' '.join(place.choices)}'"] if place.choices else []
        for flag in place.flags:
            takes = f" -x -a '{' '.join(flag.choices)}'" if flag.choices else " -r" if flag.takes_value else ""
            lines.append(f"{begin} -l {flag.name.removeprefix('--')}{takes} -d '{flag.help}'")
    return "\n".join(lines) + "\n"
