"""How many parts an SMS takes."""

import pytest
from hypothesis import given, strategies as st

from server.model.segments import GSM7_JOINED, UCS2_JOINED, is_gsm7, segments_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 0),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 1530, 10),
        ("a" * 1531, 11),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("a" * 152 + "€" + "a" * 151, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("س" * 70, 1),
        ("س" * 71, 2),
        ("س" * 670, 10),
        ("س" * 671, 11),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),
        ("😀" * 67, 3),
    ],
)
def test_parts(text: str, parts: int) -> None:
    """Alone 160 or 70 characters, joined 153 or 67; what takes two places is never cut in two."""
    assert segments_of(text) == parts


@given(st.text(min_size=1, max_size=1_600))
def test_parts_hold_the_whole_text(text: str) -> None:
    """Never fewer parts than characters need, and one character more never makes it fewer."""
    room = GSM7_JOINED if is_gsm7(text) else UCS2_JOINED
    alone = 160 if is_gsm7(text) else 70
    parts = segments_of(text)
    assert parts == 1 if len(text) * 2 <= alone else parts >= len(text) / max(room, alone)
    assert segments_of(text + "a") >= parts
