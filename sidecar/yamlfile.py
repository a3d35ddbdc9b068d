"""A YAML file as plain values with their lines: read strictly, so that nothing in it means something unexpected.

Scalars follow the core schema of YAML 1.2, narrowed: only `true`, `false`, `null`, `~`, decimal numbers without leading
zeros, and nothing at all are not text. So `off`, `no`, `010` and `12:30:45` stay what they look like.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

MAX_BYTES = 256 << 10
MAX_DEPTH = 32

Path = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[1-9][0-9]*[eE][-+]?[0-9]+)")
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*|[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|B|[KMG]iB)")
_YAML_1_1_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


class YamlError(ValueError):
    """The file is not read. `problems` lists every reason found, each with its place and its mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def dotted(path: Path) -> str:
    """The path as people write it: `subscribers[0].url`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part[:64]}" for part in path).removeprefix(".")


def read(path: str) -> tuple[Any, dict[Path, int]]:
    """The file's plain tree (None when it is empty) and the line of each path in it. Raises `YamlError`."""
    composer = _Composer(path)
    try:
        tree = composer.document(_text(path))
    except yaml.MarkedYAMLError as error:
        too_deep = error.problem and "nesting depth" in error.problem  # libyaml has a limit too, and reads ahead
        composer.note(_line_of(error), _TOO_DEEP if too_deep else f"not valid YAML ({error.problem}): {_MEND}")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, YamlError):
            raise
        composer.note(1, f"not valid YAML: {_MEND}")
    except _TooDeepError:
        pass
    if composer.problems:
        raise YamlError(composer.problems)
    return tree, composer.lines


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels; flatten it"
_MEND = 'indent with spaces, close brackets and quotes, and quote text that has ": ", "#" or brackets in it'


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _line_of(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return 1 if mark is None else mark.line + 1


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise YamlError([f"{path}: cannot be read ({reason}); check the path and its permissions"]) from None
    if len(content) > MAX_BYTES:
        raise YamlError([f"{path}: larger than {MAX_BYTES >> 10} KiB; is this the right file?"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError([f"{path}:{line}: not UTF-8; save the file in that encoding"]) from None
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise YamlError([f"{path}:{line}: has the control character U+{ord(bad[0]):04X}; delete it"])
    return text


class _TooDeepError(Exception):
    pass


class _Composer:
    """Builds the tree from the parser's events.

    Not from its node tree: composing nodes overflows the C stack on deep nesting, and resolves YAML 1.1 scalars.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self.lines: dict[Path, int] = {}
        self.events: Iterator[Any] = iter(())

    def note(self, line: int, problem: str) -> None:
        self.problems.append(f"{self.name}:{line}: {problem}")

    def document(self, text: str) -> Any:
        self.events = yaml.parse(text, Loader=_LOADER)
        next(self.events)  # the stream starts
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        tree = self.value(next(self.events), ())
        next(self.events)  # the document ends
        if not isinstance(following := next(self.events), yaml.StreamEndEvent):
            self.note(_line(following), "a second document starts; keep one, and delete the line `---`")
        return tree

    def value(self, event: Any, path: Path) -> Any:
        line = _line(event)
        self.lines.setdefault(path, line)
        self._refuse_extras(event, line, path)
        if isinstance(event, yaml.CollectionStartEvent) and len(path) >= MAX_DEPTH:
            self.note(line, _TOO_DEEP)
            raise _TooDeepError
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, line, path)

    def _refuse_extras(self, event: Any, line: int, path: Path) -> None:
        at = f"{dotted(path)}: " if path else ""
        if event.anchor is not None:
            mark = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
            self.note(line, f"{at}{mark}{event.anchor} is not allowed; write the value out")
        elif event.tag is not None:
            self.note(line, f"{at}a tag (!…) is not allowed; leave it out, and put text in quotes")

    def _mapping(self, path: Path) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line(event)
            key = self._key(event, line, path)
            here = (*path, key)
            if key in tree:
                self.note(line, f"{dotted(here)}: written twice, first in line {self.lines[here]}; keep one of them")
            self.lines.setdefault(here, line)
            value = self.value(next(self.events), here)
            tree.setdefault(key, value)
        return tree

    def _key(self, event: Any, line: int, path: Path) -> str:
        here = (*path, f"key in line {line}")
        if isinstance(event, yaml.ScalarEvent):
            self._refuse_extras(event, line, here)
            key = self._scalar(event, line, here)
        else:
            key = self.value(event, here)
        if isinstance(key, str):
            return key
        self.note(line, f"{dotted(here)}: not text; put it in quotes")
        return f"key {len(self.problems)}"  # of its own, to go on with

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, (*path, len(items))))
        return items

    def _scalar(self, event: Any, line: int, path: Path) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return ""
        if not event.value.isprintable():
            self.note(line, f"{dotted(path)}: has a control character or a line break; write one line of plain text")
            return ""
        return resolve(event.value) if event.style in (None, "") else event.value


def resolve(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text


def dump(tree: dict[str, Any]) -> str:
    """The tree as YAML that `read` gives back unchanged, and that readers of YAML 1.1 understand in the same way."""
    return "".join(f"{line}\n" for line in _block(tree))


def _block(tree: dict[str, Any]) -> Iterator[str]:
    for key, value in tree.items():
        if value and isinstance(value, dict):
            yield f"{_flow(key)}:"
            yield from (f"  {line}" for line in _block(value))
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            yield f"{_flow(key)}:"
            for item in value:
                first, *rest = _block(item)
                yield f"  - {first}"
                yield from (f"    {line}" for line in rest)
        else:
            yield f"{_flow(key)}: {_flow(value)}"


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _YAML_1_1_WORDS and resolve(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
