"""API keys."""

import hashlib

import pytest
from hypothesis import given, strategies as st

from server.vault.api_keys import matches, mint, parse

MINTED = mint()


def test_a_minted_key_is_read_back() -> None:
    """What is kept is what the presented key comes to; the prefix leads to the id and not to the secret."""
    for minted in (mint() for _ in range(50)):
        presented = parse(minted.secret)
        assert presented is not None
        assert presented.key_id == minted.key_id
        assert matches(presented.digest, minted.digest)
        assert minted.digest == hashlib.sha256(minted.secret.encode()).digest()
        assert minted.secret.startswith(f"{minted.prefix}_")
        assert minted.prefix == f"ang_{minted.key_id}"
        assert minted.secret not in repr(minted)
        assert len(minted.secret) - len(minted.prefix) > 43


def test_no_two_keys_are_alike() -> None:
    """Ids and secrets are random."""
    minted = [mint() for _ in range(200)]
    assert len({key.key_id for key in minted}) == len({key.digest for key in minted}) == 200


@given(st.integers(0, len(MINTED.secret) - 1), st.sampled_from("abcXYZ019_-. é٠"))
def test_a_key_with_one_wrong_character_is_none(place: int, wrong: str) -> None:
    """The checksum finds every slip of one character, so that it costs no look into the database."""
    typed = MINTED.secret[:place] + wrong + MINTED.secret[place + 1 :]
    assert parse(typed) is None or typed == MINTED.secret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ang_",
        "Bearer x",
        MINTED.secret[:-1],
        MINTED.secret + "0",
        " " + MINTED.secret,
        MINTED.secret + "\n",
        MINTED.secret.upper(),
    ],
    ids=["empty", "prefix", "other", "shorter", "longer", "space", "newline", "upper"],
)
def test_what_has_not_the_shape_is_none(text: str) -> None:
    """Nothing is trimmed or guessed."""
    assert parse(text) is None


def test_digests_match_only_when_equal() -> None:
    """A digest of another key does not match."""
    assert not matches(mint().digest, MINTED.digest)
