"""Identities sort by the time of their making."""

import uuid

from hypothesis import given, strategies as st

from server.model.ids import RANDOM_BYTES, uuid7
from server.vault.identity import new_id

MOMENTS = st.integers(min_value=0, max_value=(1 << 48) * 1000 - 1)
RANDOM = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(MOMENTS, RANDOM)
def test_it_is_a_uuid_of_version_7(at: int, randomness: bytes) -> None:
    """Version and variant are those of RFC 9562, in lower case, with the millisecond in front."""
    text = uuid7(at, randomness)
    read = uuid.UUID(text)
    assert (str(read), read.version, read.variant) == (text, 7, uuid.RFC_4122)
    assert read.int >> 80 == at // 1000


@given(MOMENTS, MOMENTS, RANDOM, RANDOM)
def test_later_sorts_behind(one: int, other: int, first: bytes, second: bytes) -> None:
    """Ids of different microseconds sort as they were made, whatever is random in them."""
    if one != other:
        assert (uuid7(one, first) < uuid7(other, second)) == (one < other)


def test_no_two_are_the_same() -> None:
    """Ten thousand made at once all differ."""
    assert len({new_id() for _ in range(10_000)}) == 10_000
