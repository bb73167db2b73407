"""The master keys."""

import base64
import stat
import threading
from pathlib import Path

import pytest

from server.vault.ring import MasterKeyError, MasterKeys

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()


def test_the_first_key_wraps_and_every_key_is_kept() -> None:
    """A ring is read in its order, with blanks around it."""
    ring = MasterKeys.parse(f" new:{KEY}, old:{OTHER}\n")
    assert ring.first == "new"
    assert dict(ring.keys) == {"new": bytes(range(32)), "old": bytes(range(1, 33))}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "new",
        f":{KEY}",
        f"n w:{KEY}",
        f"{'n' * 33}:{KEY}",
        "new:",
        "new:AAAA",
        f"new:{KEY[:-1]}",
        f"new:{KEY},new:{KEY}",
        f"new:{KEY},",
    ],
)
def test_a_ring_that_is_not_one_is_refused_without_showing_a_key(text: str) -> None:
    """Nothing is guessed; the error never holds a key."""
    with pytest.raises(MasterKeyError) as refused:
        MasterKeys.parse(text)
    assert KEY not in str(refused.value)


def test_no_repr_shows_a_key() -> None:
    """A ring in a log or a traceback gives nothing away."""
    assert KEY not in repr(MasterKeys.parse(f"new:{KEY}"))
    assert "range" not in repr(MasterKeys.parse(f"new:{KEY}"))


def test_the_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """A second start finds the same key; nobody else may read it; no draft is left."""
    path = tmp_path / "data" / "master.key"
    made = MasterKeys.load_or_create(path)
    assert MasterKeys.load_or_create(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    """Whoever makes the file first wins; the others read his."""
    path, made, ready = tmp_path / "master.key", list[MasterKeys](), threading.Barrier(8)

    def start() -> None:
        ready.wait(10)
        made.append(MasterKeys.load_or_create(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 8
    assert all(ring == made[0] for ring in made)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """The error says what to do."""
    path = tmp_path / "master.key"
    MasterKeys.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        MasterKeys.load_or_create(path)
