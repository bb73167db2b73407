"""Telephone numbers: whatever people type becomes E.164, or a sentence that says what is wrong with it."""

import unicodedata
from functools import lru_cache

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberType, carrier

PHONE_LENGTH_MAX = 32
_MARKS = {
    "\u200e",
    "\u200f",
    "\u202a",
    "\u202b",
    "\u202c",
    "\u202d",
    "\u202e",
    "\u2066",
    "\u2067",
    "\u2068",
    "\u2069",
    "\ufeff",
}
_TEXTABLE = {
    PhoneNumberType.MOBILE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE,
    PhoneNumberType.PERSONAL_NUMBER,
    PhoneNumberType.VOIP,
    PhoneNumberType.PAGER,
}
_CALLABLE = _TEXTABLE | {PhoneNumberType.FIXED_LINE, PhoneNumberType.UAN}


class BadPhone(ValueError):
    """No telephone number that a message could go to. Says why, for the caller, without the number."""


def to_e164(typed: str, region: str, *, voice: bool = False) -> str:
    """The E.164 form of a number as people type it: `09120000111`, `+98…`, `0098…`, with Persian digits or marks.

    `region` is the two-letter country that numbers without a country code belong to; empty: there is none.
    Numbers that cannot take a text (landlines, premium, short codes) are refused; `voice` allows landlines.
    """
    if len(typed) > PHONE_LENGTH_MAX:
        raise BadPhone(f"has more than {PHONE_LENGTH_MAX} characters")
    number = _parse(_plain(typed), region)
    kind = phonenumbers.number_type(number)
    if kind == PhoneNumberType.UNKNOWN:
        raise BadPhone(_why_unknown(number))
    if kind not in (_CALLABLE if voice else _TEXTABLE):
        raise BadPhone("cannot take a text message: it is a landline, a premium-rate or another special number")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _plain(typed: str) -> str:
    digits = (str(unicodedata.digit(c)) if c.isdecimal() and not c.isascii() else c for c in typed if c not in _MARKS)
    plain = "".join(digits).strip()
    if not plain:
        raise BadPhone("is empty")
    if any(c.isalpha() for c in plain) or not plain.isascii():
        raise BadPhone("holds characters that are no part of a telephone number")
    return "+" + plain[2:] if plain.startswith("00") else plain


def _parse(plain: str, region: str) -> PhoneNumber:
    try:
        number = phonenumbers.parse(plain, region or None)
    except NumberParseException as error:
        raise BadPhone(_sentence(error, region)) from None
    return number


def _why_unknown(number: PhoneNumber) -> str:
    """A valid number has a kind: to look for that alone costs half of what asking for both does."""
    if not phonenumbers.is_possible_number(number):
        return "is too short or too long for its country"
    return "is not in use in any country's numbering plan"


def _sentence(error: NumberParseException, region: str) -> str:
    if error.error_type == NumberParseException.INVALID_COUNTRY_CODE and not region:
        return "needs its country code, as in +989120000111: the tenant has no default_region"
    return "is no telephone number"


@lru_cache(maxsize=4096)
def _number_of(e164: str) -> PhoneNumber:
    return phonenumbers.parse(e164, None)


@lru_cache(maxsize=4096)
def country_of(e164: str) -> str:
    """The two-letter country of an E.164 number; empty where it belongs to none (satellite, international networks)."""
    region = phonenumbers.region_code_for_number(_number_of(e164))
    return region if region and region.isalpha() else ""


@lru_cache(maxsize=4096)
def operator_of(e164: str) -> str:
    """The operator that the number's prefix was given to, as `MCI`; empty where that is not known.

    A number that was taken along to another operator is not known as such. Costs 10 µs for a number that is new.
    """
    name = carrier.name_for_valid_number(_number_of(e164), "en")
    return name.removeprefix(f"{country_of(e164)}-")


def hint_of(e164: str) -> str:
    """What may be shown of a number: the country code and the last four digits."""
    number = _number_of(e164)
    return f"+{number.country_code}•••••{str(number.national_number)[-4:]}"
