"""How a problem with the configuration is told: its place, what was expected, what was found."""

import re
from collections.abc import Collection
from itertools import islice
from typing import Any, NamedTuple

from sidecar.units import Bytes, Seconds
from sidecar.yamlfile import Path, dotted

SHOWN_NAMES = 20
_LIKE_A_TOKEN = re.compile(r"(?=[!-~]*[0-9])[!-~]{32}")
NOUNS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Seconds: "a duration",
    Bytes: "a size",
}


class Problem(NamedTuple):
    """What is wrong at a path. `others` are the values it was compared with."""

    path: Path
    text: str
    others: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}" if self.path else self.text


def misfit(expected: str, tree: Any, mend: str = "") -> ValueError:
    return ValueError(f"expected {expected}, got {shown(tree)}{mend}")


def shown(tree: Any) -> str:
    """What was written, short, and without a secret that slipped into the wrong place."""
    if isinstance(tree, dict | list):
        return "keys and values" if isinstance(tree, dict) else "a list"
    if isinstance(tree, str):
        hidden = "whsec_" in tree or "://" in tree or _LIKE_A_TOKEN.search(tree)
        return "text that is not shown here" if hidden else f'"{tree[:60]}…"' if len(tree) > 60 else f'"{tree}"'
    return "nothing" if tree is None else str(tree).lower()


def nearest(name: str, known: Collection[str]) -> str:
    import difflib  # only needed once something is wrong

    nearest = difflib.get_close_matches(name[:64], known, n=1)
    if nearest:
        return f"did you mean {nearest[0]}?"
    more = ", …" if len(known) > SHOWN_NAMES else ""
    return f"known here: {', '.join(islice(known, SHOWN_NAMES))}{more}"
