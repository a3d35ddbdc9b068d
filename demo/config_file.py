"""The sidecar's config file: config/demo.yaml itself, or a copy of it with free ports."""

import socket
from pathlib import Path

import msgspec

from demo.errors import DemoError
from sidecar import config
from sidecar.errors import ConfigError
from sidecar.units import Listen

PATH = Path(__file__).parent.parent / "config" / "demo.yaml"


def taken_ports() -> list[int]:
    """Which of the file's ports somebody else listens on."""
    settings = _settings()
    return [at.port for at in (settings.api.listen, settings.ops.listen) if not _free(at)]


def with_free_ports(folder: Path) -> Path:
    """A copy of the file in `folder` that has the system choose the ports."""
    settings = _settings()
    anywhere = Listen(host="127.0.0.1", port=0)
    copy = msgspec.structs.replace(
        settings,
        api=msgspec.structs.replace(settings.api, listen=anywhere),
        ops=msgspec.structs.replace(settings.ops, listen=anywhere),
    )
    path = folder / "demo.yaml"
    path.write_text(config.effective(copy), encoding="utf-8")
    return path


def _settings() -> config.Config:
    try:
        return config.load(str(PATH))
    except ConfigError as error:
        raise DemoError("the config file cannot be used:", *error.problems) from None


def _free(at: Listen) -> bool:
    try:
        socket.create_server((at.host, at.port)).close()
    except OSError:
        return False
    return True
