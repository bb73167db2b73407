"""The master keys, which wrap the tenants' own keys and are kept outside the database."""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from server.vault import keyfile

KEY_LENGTH = 32
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_OTHERS_MAY_READ = 0o077


class MasterKeyError(ValueError):
    """The master keys can not be used as they are given; the message says why and never shows a key."""


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """A ring of 32-byte keys by name. `first` wraps; every one unwraps, so that keys rotate without a break."""

    first: str
    keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The ring in `name:base64,name2:base64`. Raises MasterKeyError."""
        keys: dict[str, bytes] = {}
        for entry in text.strip().split(","):
            name, key = _entry(entry.strip())
            if name in keys:
                raise MasterKeyError(f"master key {name!r} is given twice")
            keys[name] = key
        return cls(next(iter(keys)), keys)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The ring kept in a file, made with one key where there is none. Only its owner may read the file.

        Raises MasterKeyError for a file that others may read or that holds no ring, OSError where it can not be made.
        """
        if not path.exists():
            keyfile.create(path, f"m1:{base64.b64encode(secrets.token_bytes(KEY_LENGTH)).decode()}\n")
        if path.stat().st_mode & _OTHERS_MAY_READ:
            raise MasterKeyError(f"{path} must be readable by its owner alone: chmod 600 {path}")
        return cls.parse(path.read_text("ascii", errors="replace"))


def _entry(entry: str) -> tuple[str, bytes]:
    name, colon, encoded = entry.partition(":")
    if not colon or not _NAME.fullmatch(name):
        raise MasterKeyError("master keys are written name:base64,name2:base64; a name has 1 to 32 of A-Z a-z 0-9 _ -")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise MasterKeyError(f"master key {name!r} is not base64") from None
    if len(key) != KEY_LENGTH:
        raise MasterKeyError(f"master key {name!r} has {len(key)} bytes, {KEY_LENGTH} are needed")
    return name, key
