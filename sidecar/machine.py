"""The configured states and the transitions allowed between them. Pure: it decides nothing by itself."""

from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from types import MappingProxyType

from sidecar.snapshot import FsmState


class Enforcement(StrEnum):
    """What happens to a transition that the machine does not allow."""

    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


class Machine:
    """States, their allowed transitions, and how strictly these are applied.

    Without `transitions` every move is allowed; with them, a state that is not listed has no way out.
    """

    def __init__(
        self,
        states: type[IntEnum] = FsmState,
        transitions: Mapping[IntEnum, Sequence[IntEnum]] | None = None,
        *,
        initial: IntEnum | None = None,
        enforcement: Enforcement = Enforcement.ENFORCE,
    ) -> None:
        self.states = states
        self.initial = initial
        self.enforcement = enforcement
        self.transitions: Mapping[IntEnum, frozenset[IntEnum]] | None = None
        if transitions is not None:
            self.transitions = MappingProxyType({state: frozenset(transitions.get(state, ())) for state in states})

    @classmethod
    def from_names(
        cls,
        states: Sequence[str],
        transitions: Mapping[str, Sequence[str]] | None = None,
        *,
        initial: str | None = None,
        enforcement: Enforcement = Enforcement.ENFORCE,
    ) -> "Machine":
        """A machine from names, its states numbered from 0 in listed order. The default names give `FsmState` itself."""
        members = FsmState if list(states) == FsmState._member_names_ else _enum_of(states)
        moves = None
        if transitions is not None:
            moves = {members[source]: [members[target] for target in targets] for source, targets in transitions.items()}
        return cls(members, moves, initial=None if initial is None else members[initial], enforcement=enforcement)

    def allows(self, source: IntEnum, target: IntEnum) -> bool:
        """Whether the move is in the machine. Staying in a state is an update, not a move, and always allowed."""
        return source == target or self.transitions is None or target in self.transitions[source]

    def allowed(self, source: IntEnum) -> list[str]:
        """The names of the states that can follow `source`, in the machine's order."""
        return [state.name for state in self.states if state != source and self.allows(source, state)]

    def moves(self) -> list[tuple[str, str]]:
        """The transitions that are listed, by name; none where every move is allowed."""
        if self.transitions is None:
            return []
        return [(source.name, target) for source in self.states for target in self.allowed(source)]

    def mermaid(self, current: IntEnum | None = None) -> str:
        """The machine as a Mermaid state diagram, the current state marked."""
        lines = ["stateDiagram-v2"]
        if self.initial is not None:
            lines.append(f"    [*] --> {self.initial.name}")
        lines += [f"    {state.name}" for state in self.states]
        lines += [f"    {source} --> {target}" for source, target in self.moves()]
        if current is not None:
            lines += [
                "    classDef current fill:#2f7ed8,color:#fff,font-weight:bold",
                f"    class {current.name} current",
            ]
        return "\n".join(lines) + "\n"


def _enum_of(names: Sequence[str]) -> type[IntEnum]:
    members: type[IntEnum] = IntEnum("FsmState", list(names), start=0)  # type: ignore[misc]  # names known only now
    return members
