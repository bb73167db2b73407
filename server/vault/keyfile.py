"""Files that hold a key: for their owner alone, whole or not at all, and still there after a power cut."""

import os
import secrets
from pathlib import Path


def create(path: Path, text: str) -> None:
    """Write the file; whoever comes second leaves the first one's file alone."""
    draft = _drafted(path, text)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    _sync_folder(path.parent)


def replace(path: Path, text: str) -> None:
    """Write the file in the place of what was there."""
    _drafted(path, text).replace(path)
    _sync_folder(path.parent)


def _drafted(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
