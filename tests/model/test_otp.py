"""Codes: what is one, how it is typed, and what a further send makes of a verification."""

import string
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from server.model.clock import SECOND, Micros
from server.model.otp import (
    Check,
    CheckResult,
    CodeWanted,
    Renewal,
    Verification,
    attempts_max_of,
    code_of,
    is_code,
    renewal_of,
    why_over,
)

NOW: Micros = 1_700_000_000 * SECOND
LETTERS = string.digits + string.ascii_letters
codes = st.text(LETTERS, min_size=4, max_size=10)
LIVE = Verification(
    id="v",
    tenant_id="north",
    intent="OTP",
    destination_index="d",
    key_id="k",
    mac=b"m",
    attempts_max=5,
    created_at=NOW - 60 * SECOND,
    expires_at=NOW + 60 * SECOND,
    length=6,
    sends=1,
)
OWN = replace(LIVE, length=0)


@given(codes, st.lists(st.tuples(st.integers(0, 10), st.sampled_from(" -\u2010\u2011\u00a0\t")), max_size=8))
def test_a_code_is_found_among_spaces_and_hyphens(code: str, between: list[tuple[int, str]]) -> None:
    """Wherever they stand, and however many."""
    typed = list(code)
    for place, mark in between:
        typed.insert(min(place, len(typed)), mark)
    assert code_of("".join(typed)) == code


@given(st.text(string.digits, min_size=4, max_size=10), st.sampled_from("۰٠"))  # noqa: RUF001 - Persian, Arabic
def test_persian_and_arabic_digits_are_digits(code: str, zero: str) -> None:
    """As telephones of their users write them."""
    assert code_of("".join(chr(ord(zero) + int(digit)) for digit in code)) == code


@given(st.text(max_size=20))
def test_what_is_read_is_a_code_or_nothing(typed: str) -> None:
    """Whatever was typed, nothing else goes on to a check; what is a code already is read as it is."""
    code = code_of(typed)
    assert code == "" or (4 <= len(code) <= 10 and set(code) <= set(LETTERS))
    if is_code(typed):
        assert code == typed


@pytest.mark.parametrize("bad", ["", "123", "12345678901", "12 3", "abcd!", "١٢٣", "½½½½", "१२३४", "12_345", "%CODE%"])
def test_what_cannot_be_a_code_is_none(bad: str) -> None:
    """Too short, too long, or of other characters."""
    assert code_of(bad) == ""
    assert not is_code(bad)


@pytest.mark.parametrize(("token", "attempts"), [("1234", 3), ("12345", 3), ("123456", 5), ("1234567890", 5), ("", 5)])
def test_a_short_code_of_the_callers_has_three_attempts(token: str, attempts: int) -> None:
    """With fewer than six characters; ours have five."""
    assert attempts_max_of(token) == attempts


OVER = {
    "expired": replace(LIVE, expires_at=NOW),
    "exhausted": replace(LIVE, attempts=5),
    "verified": replace(LIVE, verified_at=NOW - 1),
    "replaced": replace(LIVE, is_live=False),
}


@pytest.mark.parametrize("over", OVER.values(), ids=OVER)
@pytest.mark.parametrize(("token", "same"), [("", False), ("123456", False), ("123456", True)])
def test_after_a_verification_that_is_over_there_is_a_new_one(over: Verification, token: str, *, same: bool) -> None:
    """Whatever ended it, and whosever code the next one is."""
    assert renewal_of(over, token, NOW, same_token=same) == Renewal.NEW


@pytest.mark.parametrize(
    ("live", "token", "same", "renewal"),
    [
        (None, "", False, Renewal.NEW),
        (LIVE, "", False, Renewal.SAME),
        (LIVE, "123456", False, Renewal.REPLACED),
        (OWN, "123456", True, Renewal.SAME),
        (OWN, "654321", False, Renewal.REPLACED),
        (OWN, "", False, Renewal.SAME),
        (replace(OWN, attempts=4), "", False, Renewal.SAME),
        (replace(LIVE, attempts=2), "1234", False, Renewal.REPLACED),
        (replace(LIVE, attempts=3), "1234", False, Renewal.NEW),
        (replace(LIVE, attempts=4), "123456", False, Renewal.REPLACED),
    ],
)
def test_a_further_send_says_the_same_code_or_replaces_it(
    live: Verification | None, token: str, renewal: Renewal, *, same: bool
) -> None:
    """The same code goes out again; another one replaces it, and the attempts that are spent stay spent."""
    assert renewal_of(live, token, NOW, same_token=same) == renewal


@given(st.integers(0, 5), st.sampled_from(["", "1234", "123456"]), st.booleans())
def test_no_code_is_born_without_an_attempt(attempts: int, token: str, same: bool) -> None:
    """Whatever was spent, the code that goes out can be verified."""
    live = replace(LIVE, attempts=attempts)
    if renewal_of(live, token, NOW, same_token=same) == Renewal.REPLACED:
        assert live.attempts < attempts_max_of(token)


@pytest.mark.parametrize(
    ("verification", "result"),
    [
        (None, CheckResult.UNKNOWN),
        (OVER["verified"], CheckResult.USED),
        (replace(OVER["verified"], attempts=5, expires_at=NOW - 1), CheckResult.USED),
        (OVER["exhausted"], CheckResult.EXHAUSTED),
        (OVER["expired"], CheckResult.EXPIRED),
        (OVER["replaced"], CheckResult.EXPIRED),
    ],
)
def test_why_a_verification_takes_no_more_codes(verification: Verification | None, result: CheckResult) -> None:
    """What ended it first is what is told."""
    assert why_over(verification) == result


def test_no_code_and_no_address_is_in_a_repr() -> None:
    """Nouns that hold a secret do not show it."""
    secrets = ("+989120000111", "+98912000", "8264", "192.0.2.7", "device-7", "a@example.com")
    wanted = CodeWanted(secrets[0], secrets[1], SECOND, 6, secrets[5], secrets[2], secrets[3], secrets[4])
    check = Check("north", "shop", secrets[2], destination=secrets[0], fingerprint=b"8264")
    shown = repr((wanted, check, replace(LIVE, mac=b"8264", code=b"8264")))
    assert [secret for secret in secrets if secret in shown] == []
