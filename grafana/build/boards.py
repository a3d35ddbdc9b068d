"""The dashboards as files: numbered, and as text that is the same each time."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from grafana.build.agent import agent
from grafana.build.fleet import fleet
from grafana.build.webhooks import webhooks

FOLDER = Path(__file__).parents[1] / "dashboards"
BOARDS = (fleet, agent, webhooks)


def files() -> dict[Path, str]:
    """Path → content of each dashboard."""
    boards = [numbered(make()) for make in BOARDS]
    return {FOLDER / f"{board.uid}.json": text(board) for board in boards}


def text(board: models.Dashboard) -> str:
    """As it is committed."""
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def numbered(board: Dashboard) -> models.Dashboard:
    """The dashboard, each panel with an id made of its title: the SDK gives none, and a link to a panel must last."""
    built = board.build()
    for panel in _panels(built):
        panel.id_val = zlib.crc32(str(panel.title).encode()) % 100_000 + 1
    return built


def _panels(board: models.Dashboard) -> Iterator[models.Panel | models.RowPanel]:
    for panel in board.panels or ():
        yield panel
        yield from getattr(panel, "panels", None) or ()
