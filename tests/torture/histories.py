"""Random histories of a single state, ways to break them, and a search that judges them without a journal. Pure."""

import math

from linearizable import NOTHING, OK, READ, REJECTED, UNKNOWN, WRITE, Entry, Expected, Operation

STATES = ("BOOTING", "IDLE", "ACTIVE", "ERROR_STATE")


def state_of(value):
    """The state that a write of this value asks for: so that a search knows it of unknown writes."""
    return STATES[int(value.removeprefix("w")) % len(STATES)]


# --- legal ones ---


def legal(random, operations, *, clients=16, unknown=0.03):
    """A journal and a history that agree: each operation takes effect at a moment between its call and its return."""
    state, journal, history = NOTHING, [], []
    for number, (client, call, _, back) in enumerate(_moments(random, operations, clients)):
        kind = random.choices([READ, WRITE], [40, 60])[0]
        if kind == READ:
            history.append(Operation(client, READ, call, back, OK, state))
            continue
        value, expected = f"w{number}", _expectation(random, state)
        cut, before = random.random() < unknown, state
        if expected.holds(before) and not (cut and random.random() < 0.5):  # some requests never arrive
            state = Entry(before.revision + 1, before.version + 1, state_of(value), value)
            journal.append(state)
        if cut:
            history.append(Operation(client, WRITE, call, math.inf, UNKNOWN, None, value, expected))
        elif state is before:
            history.append(Operation(client, WRITE, call, back, REJECTED, before._replace(revision=None), value, expected))
        else:
            history.append(Operation(client, WRITE, call, back, OK, state, value, expected))
    random.shuffle(history)
    return journal, history


def _moments(random, operations, clients):
    """Client, call, moment of effect and return of each operation, by the moment. Each client waits for its own."""
    drawn = []
    for client in range(clients):
        clock = 0
        for _ in range(operations // clients):
            call = clock + random.randint(1, 50)
            moment = call + random.randint(1, 200)
            clock = moment + random.randint(1, 200)
            drawn.append((f"c{client}", call, moment, clock))
    random.shuffle(drawn)  # those at the same moment in any order
    return sorted(drawn, key=lambda operation: operation[2])


def _expectation(random, state):
    """Mostly a version, often a stale one; sometimes another kind, or none."""
    version = state.version if random.random() < 0.6 else state.version - random.randint(1, 5)
    kinds = [Expected(version=version), Expected(below=version + 1), Expected(state=random.choice(STATES)), Expected()]
    return random.choices(kinds, [70, 10, 10, 10])[0]


# --- illegal ones ---


def with_stale_read(random, journal, history):
    """One read shows what had been replaced, by an acknowledged write, before the read began."""
    acknowledged = [operation for operation in history if operation.kind == WRITE and operation.outcome == OK]
    reads = []
    for place, read in enumerate(history):
        if read.kind == READ:
            older = [write.seen.revision for write in acknowledged if write.back < read.call]
            reads += [(place, max(older))] if older else []
    place, revision = random.choice(reads)
    shown = (NOTHING, *journal)[random.randint(max(0, revision - 3), revision - 1)]
    return journal, [*history[:place], history[place]._replace(seen=shown), *history[place + 1 :]]


def with_lost_update(random, journal, history):
    """One acknowledged write has left no trace: what came after it has moved up, in the journal and in what was seen."""
    lost = random.choice([operation for operation in history if operation.kind == WRITE and operation.outcome == OK])
    gone = lost.seen.revision

    def moved(entry):
        late = entry is not None and entry.revision is not None and entry.revision > gone
        return entry._replace(revision=entry.revision - 1) if late else entry

    kept = [moved(entry) for entry in journal if entry.revision != gone]
    shown = [operation for operation in history if operation is lost or operation.seen != lost.seen]
    return kept, [operation._replace(seen=moved(operation.seen)) for operation in shown]


# --- judged by search ---


def linearizable_by_search(history):
    """Whether some order of the operations explains the history, by trying them (Wing and Gong 1993, with Lowe's memory).

    It knows no journal, so an unknown write may be anywhere or nowhere.
    """
    known = sum(1 << place for place, operation in enumerate(history) if operation.outcome != UNKNOWN)
    start = (0, NOTHING)
    seen, stack = {start}, [start]
    while stack:
        done, state = stack.pop()
        if done & known == known:
            return True
        for step in _steps(history, done, state):
            if step not in seen:
                seen.add(step)
                stack.append(step)
    return False


def _steps(history, done, state):
    """What can come next: an operation that began before all others that are left had ended. One that changes nothing is
    taken at once: it cannot be worse now than later."""
    left = [(1 << place, operation) for place, operation in enumerate(history) if not done & 1 << place]
    first_end = min(operation.back for _, operation in left)
    open_now = [(bit, operation) for bit, operation in left if operation.call <= first_end]
    for bit, operation in open_now:
        if _explains(operation, state):
            return [(done | bit, state)]
    return [(done | bit, after) for bit, operation in open_now if (after := _written(operation, state))]


def _explains(operation, state):
    """Whether an operation that changed nothing fits the state."""
    if operation.kind == WRITE and operation.outcome != REJECTED:
        return False
    shown = operation.seen
    same = shown in (state, state._replace(revision=None))
    return same and not (operation.outcome == REJECTED and operation.expected.holds(state))


def _written(operation, state):
    """The state after a write that was applied, or may have been; None where it cannot have been."""
    if operation.kind == READ or operation.outcome == REJECTED or not operation.expected.holds(state):
        return None
    after = Entry(state.revision + 1, state.version + 1, state_of(operation.value), operation.value)
    return after if operation.outcome == UNKNOWN or operation.seen == after else None
