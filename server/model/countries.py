"""The countries that a telephone number can belong to."""

import phonenumbers


def is_country(code: str) -> bool:
    """Whether a text is the two-letter code, in capitals, of a country with a numbering plan."""
    return code in phonenumbers.SUPPORTED_REGIONS
