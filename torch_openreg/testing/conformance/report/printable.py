"""Texts of rows as files can hold them: the last words of a process may have anything in them."""

import re

# What neither XML 1.0 nor UTF-8 has: control characters, and halves of surrogate pairs.
UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(value) -> str:
    """The text of the value, with a question mark for each character that a file cannot hold."""
    return UNPRINTABLE.sub("?", str(value))
