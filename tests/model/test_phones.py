"""Telephone numbers as people type them."""

import re

import pytest
from hypothesis import given, strategies as st

from server.model.phones import PHONE_LENGTH_MAX, BadPhone, country_of, hint_of, operator_of, to_e164

GOOD = "+989120000111"


def read(typed: str, region: str, *, voice: bool = False) -> tuple[str, str]:
    """The number, or the sentence that refuses it."""
    try:
        return to_e164(typed, region, voice=voice), ""
    except BadPhone as bad:
        return "", str(bad)


@pytest.mark.parametrize(
    "typed",
    [
        "+989120000111",
        "09120000111",
        "9120000111",
        "989120000111",
        "00989120000111",
        "+98 0912 000 0111",
        "+98 (912) 000-0111",
        "0912.000.0111",
        "  09120000111\t",
        "۰۹۱۲۰۰۰۰۱۱۱",
        "٠٩١٢٠٠٠٠١١١",
        "+۹۸۹۱۲۰۰۰۰۱۱۱",
        "۰۰۹۸۹۱۲۰۰۰۰۱۱۱",
        "\uff10\uff19\uff11\uff12\uff10\uff10\uff100111",
        "\u200e+98 912 000 0111\u200f",
        "\u202a09120000111\u202c",
        "\ufeff09120000111",
    ],
)
def test_what_people_type_becomes_one_number(typed: str) -> None:
    """Country code or none, trunk zero, Persian and Arabic digits, marks of direction, spaces: one E.164 number."""
    assert to_e164(typed, "IR") == GOOD


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "\u200e",
        "+",
        "00",
        "123",
        "abc",
        "0912000011a",
        "0800FLOWERS",
        "+98912000011",
        "+9891200001111",
        "1234567890123456",
        "+1234567890123456",
        "+9991234567",
        "+98912000\u00b2111",
        "+9891200001\u2460\u2460",
        "0912 000 0111 ext 5",
        "tel:+989120000111",
        "+989120000111;ext=5",
        "+98912\x000000111",
        "9" * (PHONE_LENGTH_MAX + 1),
    ],
)
def test_what_is_no_number_is_refused(typed: str) -> None:
    """Too short, too long, letters, extensions, control characters, numbers of no plan: refused with a sentence."""
    with pytest.raises(BadPhone) as refused:
        to_e164(typed, "IR")
    assert str(refused.value).count(" ") >= 1


@pytest.mark.parametrize(
    ("typed", "region"),
    [("02122334455", "IR"), ("+442079460018", ""), ("+449098790000", ""), ("+18002345678", ""), ("110", "IR")],
)
def test_what_takes_no_text_is_refused(typed: str, region: str) -> None:
    """Landlines, premium and toll-free numbers and short codes take no text."""
    with pytest.raises(BadPhone):
        to_e164(typed, region)


def test_a_landline_takes_a_call() -> None:
    """A voice message may go to a landline, and not to a premium number."""
    assert to_e164("02122334455", "IR", voice=True) == "+982122334455"
    with pytest.raises(BadPhone):
        to_e164("+449098790000", "", voice=True)


@pytest.mark.parametrize("typed", ["09120000111", "9120000111"])
def test_without_a_region_the_country_code_is_needed(typed: str) -> None:
    """A tenant without a region gets a sentence that tells it to write the country code."""
    with pytest.raises(BadPhone, match=r"country code, as in \+98"):
        to_e164(typed, "")
    assert to_e164(GOOD, "") == GOOD


@pytest.mark.parametrize(
    ("number", "country"), [(GOOD, "IR"), ("+447400123456", "GB"), ("+12025550123", "US"), ("+881612345678", "")]
)
def test_the_country_of_a_number(number: str, country: str) -> None:
    """The country by the numbering plan, none for numbers that belong to no country."""
    assert country_of(number) == country


@given(st.text(max_size=40), st.sampled_from(["", "IR", "GB", "US", "XX"]), st.booleans())
def test_any_text_is_a_number_or_a_bad_one(typed: str, region: str, voice: bool) -> None:
    """Whatever is typed: an E.164 number that is its own E.164 form, or BadPhone, whose sentence does not repeat it."""
    number, sentence = read(typed, region, voice=voice)
    if sentence:
        assert len(typed) < 5 or typed not in sentence
    else:
        assert re.fullmatch(r"\+[1-9][0-9]{6,14}", number)
        assert read(number, "", voice=voice) == (number, "")


PERSIAN = "".join(map(chr, range(0x6F0, 0x6FA)))
digits = st.text("0123456789 -" + PERSIAN, min_size=7, max_size=16)


@given(st.sampled_from(["+98912", "+44740", "+1202", "0912", "+8816", ""]), digits)
def test_a_hint_shows_country_code_and_four_digits_at_most(prefix: str, rest: str) -> None:
    """A hint never holds more of a number than its country code and its last four digits."""
    number, sentence = read(prefix + rest, "IR")
    if sentence:
        return
    code, _, end = hint_of(number).partition("•••••")
    assert number.startswith(code)
    assert len(code) <= len("+881")
    assert len(end) <= 4
    assert number.endswith(end)
    assert len(number) - len(code) - len(end) >= 3


@pytest.mark.parametrize(
    ("e164", "operator"),
    [
        ("+989120000111", "MCI"),
        ("+989351112222", "Irancell"),
        ("+989201112222", "Rightel"),
        ("+447400123456", "Three"),
        ("+12025550123", ""),
        ("+982188776655", ""),
    ],
)
def test_the_operator_of_a_prefix_is_named(e164: str, operator: str) -> None:
    """As the numbering plans have it, without the country that some names begin with; "" where that is not known."""
    assert operator_of(e164) == operator
