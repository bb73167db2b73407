"""E-mail addresses: the plain ASCII form that every mail system takes, or a sentence that says what is wrong."""

import re

EMAIL_CHARS_MAX = 254
LOCAL_CHARS_MAX = 64
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")


class BadEmail(ValueError):
    """The text is no e-mail address that a message could go to. Its message is a sentence without the address."""


def to_email(typed: str) -> str:
    """The address with its domain in lower case. International domains only as punycode; quoted names are refused."""
    if len(typed) > EMAIL_CHARS_MAX:
        raise BadEmail(f"has more than {EMAIL_CHARS_MAX} characters")
    if not typed.isascii():
        raise BadEmail("holds characters beyond ASCII; write an international domain as punycode (xn--…)")
    local, at, domain = typed.rpartition("@")
    if not at or len(local) > LOCAL_CHARS_MAX or not _LOCAL.fullmatch(local):
        raise BadEmail("is no address of the form name@example.com")
    if not _DOMAIN.fullmatch(domain) or domain.rpartition(".")[2].isdigit():
        raise BadEmail("has no domain of the form example.com behind its @")
    return f"{local}@{domain.lower()}"


def hint_of_email(email: str) -> str:
    """What may be shown of an address: its first letter and its domain."""
    local, _, domain = email.rpartition("@")
    return f"{local[:1]}•••@{domain}"
