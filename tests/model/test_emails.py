"""Which texts are e-mail addresses."""

import pytest

from server.model.emails import BadEmail, hint_of_email, to_email


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("a@example.com", "a@example.com"),
        ("First.Last+tag@Example.COM", "First.Last+tag@example.com"),
        ("o'neil@mail.example.co", "o'neil@mail.example.co"),
        ("a@xn--mgba3gch31f060k.example", "a@xn--mgba3gch31f060k.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_addresses(typed: str, kept: str) -> None:
    """What can be written to is kept, its domain in lower case."""
    assert to_email(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "@",
        "a@",
        "@example.com",
        "example.com",
        "a@b@example.com",
        "a@localhost",
        "a@example.1",
        "a@127.0.0.1",
        "a@-example.com",
        "a@example-.com",
        "a@exam_ple.com",
        "a..b@example.com",
        ".a@example.com",
        "a b@example.com",
        '"a b"@example.com',
        "a@example.com\n",
        "a@example.com\r\nBcc: b@example.com",
        "a\x00@example.com",
        "سلام@example.com",
        "a@مثال.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64 + ".com",
        "a@" + "b." * 130 + "com",
        "A <a@example.com>",
    ],
)
def test_what_is_none(typed: str) -> None:
    """What is no plain address is refused."""
    with pytest.raises(BadEmail):
        to_email(typed)


def test_the_sentence_does_not_repeat_the_address() -> None:
    """Errors travel and are logged: what was typed stays out of them."""
    for typed in ("maryam..k@mail.test", "maryam@mail_test", "maryam@پست.test", "maryam" * 50):
        with pytest.raises(BadEmail) as refused:
            to_email(typed)
        assert "maryam" not in str(refused.value)


def test_the_hint_hides_the_name() -> None:
    """The first letter and the domain may be shown."""
    assert hint_of_email("maryam@example.com") == "m•••@example.com"
