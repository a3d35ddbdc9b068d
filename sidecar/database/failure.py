"""What an error of the storage means."""

import errno
from pathlib import Path

from sidecar.errors import JournalDamagedError, JournalHeldError, StorageError, StorageFailedError, StorageFullError


def storage_error(path: Path, error: Exception) -> StorageError:
    """The error in our words, by its name; what is not known is a failure, after which nothing is trusted."""
    if isinstance(error, StorageError):
        return error
    name = getattr(error, "sqlite_errorname", None) or errno.errorcode.get(getattr(error, "errno", 0), type(error).__name__)
    if name == "SQLITE_FULL":
        return StorageFullError(f"{path}: {name}: {error}")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return JournalDamagedError(f"{path}: {name}: {error}")
    if name.startswith("SQLITE_BUSY"):
        return JournalHeldError(f"{path} is open in another program; one sidecar per journal, and nothing else")
    return StorageFailedError(f"{path}: {name}: {error}")
