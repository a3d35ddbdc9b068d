"""`fsm-sidecar completion`: the shells themselves complete what the command line takes."""

import os
import shutil
import subprocess
import sys

import pytest

CASES = [
    ("fsm-sidecar st", ["state"]),
    ("fsm-sidecar state g", ["get"]),
    ("fsm-sidecar state set IDLE --if-", ["--if-match", "--if-none", "--if-version"]),
    ("fsm-sidecar journal restore --c", ["--config"]),
    ("fsm-sidecar subscribers add x http://x --on ", ["transition", "update"]),
    ("fsm-sidecar state get --json --u", ["--url"]),
    ("fsm-sidecar completion ", ["bash", "fish", "zsh"]),
    ("fsm-sidecar rules p", ["prometheus"]),
    ("fsm-sidecar state get --token-file to", ["token.txt"]),
    ("fsm-sidecar check-config to", ["token.txt"]),
]

BASH = """
source ./script
complete_line() {
  COMP_LINE="$1" COMP_POINT=${#1}; read -ra COMP_WORDS <<< "$1"; [[ "$1" == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _fsm_sidecar
  ((${#COMPREPLY[@]})) || mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")  # what -o default does
  printf '%s\\n' "${COMPREPLY[@]}"
}
complete -p fsm-sidecar >&2
complete_line "$1"
"""

ZSH = """
autoload -U compinit && compinit -u -D
source ./script
_describe() {
  local each
  for each in "${(@P)${@[-1]}}"; do each=${each%%:*}; [[ $each == ${words[CURRENT]}* ]] && print -r -- $each; done; true
}
_files() { print -rl -- ${words[CURRENT]}*(N); }
words=("${(@Q)${(z)1}}"); [[ $1 == *' ' ]] && words+=('')
CURRENT=$#words
_fsm_sidecar
"""

FISH = 'source ./script; complete -C "$argv[1]"'


def completed(shell, line, folder):
    arguments = {
        "bash": ["bash", "--norc", "-c", BASH, "bash", line],
        "zsh": ["zsh", "-f", "-c", ZSH, "zsh", line],
        "fish": ["fish", "--no-config", "-c", FISH, line],
    }[shell]
    env = os.environ | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=folder, env=env, timeout=20)
    assert "rror" not in ran.stderr
    found = [name.split("\t")[0] for name in ran.stdout.splitlines()]
    return sorted(name for name in found if name.startswith("-") == line.split(" ")[-1].startswith("-"))


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request, tmp_path_factory):
    """A shell, and a folder with the script for it."""
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param}")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "token.txt").touch()
    command = [sys.executable, "-m", "sidecar", "completion", request.param]
    (folder / "script").write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return request.param, folder


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_a_shell_completes_commands_flags_values_and_files(shell, line, expected):
    """Those that fit, and no others."""
    assert expected == completed(shell[0], line, shell[1])


def test_every_command_and_flag_is_in_the_script():
    """Also one that joins later: the script is made from the command line."""
    from sidecar.cli import _parser
    from sidecar.commands.completion import _places

    places = list(_places(_parser(), ""))

    assert {" run", " state get", " subscribers ping", " journal verify", " health"} < {place.at for place in places}
