"""How many parts an SMS takes: GSM-7 where its alphabet suffices, else UCS-2."""

from collections.abc import Iterable

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")
GSM7_ALONE, GSM7_JOINED = 160, 153
UCS2_ALONE, UCS2_JOINED = 70, 67
SEGMENTS_MAX = 10
_BMP_LAST = 0xFFFF


def is_gsm7(text: str) -> bool:
    """Whether every character is in GSM 03.38's default alphabet or its extension."""
    return _BASIC.issuperset(text) or all(c in _BASIC or c in _EXTENDED for c in text)


def encoding_of(text: str) -> str:
    """What an SMS of this text is written in: `GSM-7` or `UCS-2`."""
    return "GSM-7" if is_gsm7(text) else "UCS-2"


def segments_of(text: str) -> int:
    """The parts that a text takes; no character is cut in two at the end of a part. 0 for an empty text."""
    if is_gsm7(text):
        return _parts([2 if c in _EXTENDED else 1 for c in text], GSM7_ALONE, GSM7_JOINED)
    return _parts([2 if ord(c) > _BMP_LAST else 1 for c in text], UCS2_ALONE, UCS2_JOINED)


def _parts(widths: Iterable[int], alone: int, joined: int) -> int:
    widths = list(widths)
    total = sum(widths)
    if total <= alone:
        return int(total > 0)
    parts, room = 0, 0
    for width in widths:
        if width > room:
            parts, room = parts + 1, joined
        room -= width
    return parts
