"""Identities: UUIDs of version 7 (RFC 9562), which sort by the time of their making."""

from server.model.clock import Micros

RANDOM_BYTES = 8


def uuid7(at: Micros, randomness: bytes) -> str:
    """The UUID of a moment and 8 random bytes, in lower case. The 12 bits behind the millisecond hold its fraction."""
    millis, fraction = divmod(at, 1000)
    random = int.from_bytes(randomness[:RANDOM_BYTES], "big") & ((1 << 62) - 1)
    number = (millis & ((1 << 48) - 1)) << 80 | 7 << 76 | (fraction * 4096 // 1000) << 64 | 0b10 << 62 | random
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
