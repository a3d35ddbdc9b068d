"""JSON values that cannot be changed: a dict and a list whose mutators raise `TypeError`.

They stay a `dict` and a `list`, so they compare, encode and print as what they hold.
"""

import math
from typing import Any, NoReturn, Self

MAX_DEPTH = 64


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError(f"{type(self).__name__} is read-only; make a copy with thaw()")


class FrozenDict(dict[str, Any]):
    """A read-only JSON object."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, for it can change
        return hash(frozenset(self.items()))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class FrozenList(list[Any]):
    """A read-only JSON array."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a list has none, for it can change
        return hash(tuple(self))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)


EMPTY = FrozenDict()


_PLAIN = frozenset((str, int, bool, type(None)))


def freeze(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The same JSON value, deeply read-only.

    Raises `ValueError` when it is nested deeper than `MAX_DEPTH`, and for what has no JSON form: NaN, sets, objects.
    """
    if isinstance(value, FrozenDict | FrozenList):
        if depth < MAX_DEPTH and depth_of(value) > depth:
            raise _too_deep()
        return value
    if isinstance(value, dict):
        if not depth:
            raise _too_deep()
        below = depth - 1  # most values are plain, and a call costs more than a look
        return FrozenDict({_key(key): item if type(item) in _PLAIN else freeze(item, below) for key, item in value.items()})
    if isinstance(value, list | tuple):
        if not depth:
            raise _too_deep()
        below = depth - 1
        return FrozenList([item if type(item) in _PLAIN else freeze(item, below) for item in value])
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is a value without a JSON form")
        return value
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError(f"{type(value).__name__} is a value without a JSON form")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"an object's key {key!r} is a value without a JSON form")  # noqa: TRY004  (one error for all of it)
    return key


def _too_deep() -> ValueError:
    return ValueError(f"nested deeper than {MAX_DEPTH} levels")


def depth_of(value: Any) -> int:
    """How deep the value is nested: 0 for a scalar."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    return 0 if items is None else 1 + max(map(depth_of, items), default=0)


def thaw(value: Any) -> Any:
    """A deep copy made of plain dicts and lists, to be changed freely."""
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list):
        return [thaw(item) for item in value]
    return value
