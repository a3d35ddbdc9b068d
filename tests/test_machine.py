"""The machine: which states there are, and which moves between them are allowed."""

from enum import IntEnum

import pytest

from sidecar import Enforcement, FsmState, Machine

MOVES = {"BOOTING": ["IDLE", "ERROR_STATE"], "IDLE": ["ACTIVE"], "ACTIVE": ["IDLE", "ACTIVE"]}


@pytest.fixture
def machine():
    return Machine.from_names(FsmState.__members__, MOVES, initial="BOOTING")


@pytest.mark.parametrize("source", FsmState)
@pytest.mark.parametrize("target", FsmState)
def test_a_move_is_allowed_when_it_is_listed_or_stays(machine, source, target):
    """Every pair: listed moves and updates in place are allowed, nothing else."""
    assert (target == source or target.name in MOVES.get(source.name, ())) == machine.allows(source, target)


@pytest.mark.parametrize("source", FsmState)
@pytest.mark.parametrize("target", FsmState)
def test_without_transitions_every_move_is_allowed(source, target):
    """No rules, no refusals."""
    assert Machine().allows(source, target)
    assert Machine.from_names(["A", "B"]).transitions is None


def test_a_state_that_is_not_listed_has_no_way_out(machine):
    """Only an update of the state itself."""
    assert [] == machine.allowed(FsmState.SHUTDOWN)
    assert machine.allows(FsmState.SHUTDOWN, FsmState.SHUTDOWN)


def test_empty_transitions_forbid_every_move():
    """An empty table is a table: it differs from none at all."""
    assert not Machine(FsmState, {}).allows(FsmState.IDLE, FsmState.ACTIVE)


@pytest.mark.parametrize(
    ("source", "names"), [("BOOTING", ["IDLE", "ERROR_STATE"]), ("ACTIVE", ["IDLE"]), ("IDLE", ["ACTIVE"]), ("SHUTDOWN", [])]
)
def test_allowed_names_the_states_that_can_follow(machine, source, names):
    """In the machine's order, without the state itself."""
    assert names == machine.allowed(FsmState[source])


def test_allowed_names_all_others_without_rules():
    """Every other state of the machine."""
    assert ["UNSPECIFIED", "BOOTING", "ACTIVE", "ERROR_STATE", "SHUTDOWN"] == Machine().allowed(FsmState.IDLE)


def test_the_default_names_give_the_default_enum():
    """So that code that compares with `FsmState.IDLE` works behind a config file."""
    assert FsmState is Machine.from_names(list(FsmState.__members__)).states
    assert FsmState is Machine().states


def test_own_names_are_numbered_from_zero_in_listed_order():
    """An IntEnum of their own, also when they are some of the default names in another order."""
    own = Machine.from_names(["OPEN", "SHUT", "LOCKED"]).states
    reordered = Machine.from_names(["IDLE", "BOOTING"]).states

    assert issubclass(own, IntEnum)
    assert [("OPEN", 0), ("SHUT", 1), ("LOCKED", 2)] == [(state.name, state.value) for state in own]
    assert [("IDLE", 0), ("BOOTING", 1)] == [(state.name, state.value) for state in reordered]


def test_names_become_members_of_the_machines_enum():
    """The initial state and both ends of the moves."""
    machine = Machine.from_names(["OPEN", "SHUT"], {"OPEN": ["SHUT"]}, initial="OPEN", enforcement=Enforcement.WARN)
    opened, shut = machine.states

    assert opened is machine.initial
    assert {opened: {shut}, shut: set()} == dict(machine.transitions)
    assert Enforcement.WARN is machine.enforcement


@pytest.mark.parametrize(
    "arguments", [(["A"], {"X": ["A"]}), (["A"], {"A": ["X"]}), (["A"], None, "X")], ids=["source", "target", "initial"]
)
def test_an_unknown_name_is_an_error(arguments):
    """Never silently another machine."""
    states, transitions, initial = (*arguments, None)[:3]

    with pytest.raises(KeyError, match="X"):
        Machine.from_names(states, transitions, initial=initial)


def test_rules_are_enforced_by_default_and_start_nowhere(machine):
    """The strict reading is the default one."""
    assert Enforcement.ENFORCE is machine.enforcement
    assert Machine().initial is None


def test_the_rules_cannot_be_changed(machine):
    """Neither the table nor a row of it."""
    with pytest.raises(TypeError):
        machine.transitions[FsmState.SHUTDOWN] = frozenset()
    with pytest.raises(AttributeError):
        machine.transitions[FsmState.SHUTDOWN].add(FsmState.IDLE)


def test_mermaid_draws_states_moves_and_the_current_state():
    """A state diagram that Mermaid renders as it is."""
    machine = Machine.from_names(["OPEN", "SHUT", "LOCKED"], {"OPEN": ["SHUT"], "SHUT": ["OPEN", "LOCKED"]}, initial="OPEN")
    diagram = """\
stateDiagram-v2
    [*] --> OPEN
    OPEN
    SHUT
    LOCKED
    OPEN --> SHUT
    SHUT --> OPEN
    SHUT --> LOCKED
"""
    mark = "    classDef current fill:#2f7ed8,color:#fff,font-weight:bold\n    class SHUT current\n"

    assert diagram == machine.mermaid()
    assert diagram + mark == machine.mermaid(machine.states["SHUT"])


def test_mermaid_draws_no_arrows_without_rules():
    """Where every move is allowed, all arrows would say nothing."""
    assert "stateDiagram-v2\n    A\n    B\n" == Machine.from_names(["A", "B"]).mermaid()
