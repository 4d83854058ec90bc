"""Texts as they are compared, and as they are shown: without links, handles and addresses."""

from __future__ import annotations

import hashlib
import re

_URL = re.compile(r"(?:https?://|www\.)\S+")
_HANDLE = re.compile(r"@\w+")
_RETWEET = re.compile(r"\brt\b")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"(?<![\w.])\+?\d[\d\s()/.-]{6,}\d(?!\w)")


def normalise(text: str) -> str:
    """Lower case, without links, handles and "RT", single spaces: equal texts say the same."""
    text = text.lower()
    for pattern in (_URL, _HANDLE, _RETWEET):
        text = pattern.sub(" ", text)
    return " ".join(text.split())


def digest(text: str) -> int:
    """64 bits of a text's SHA-256, as a signed number."""
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
    return int.from_bytes(found, "big", signed=True)


def mask(text: str) -> str:
    """The text with e-mail addresses, telephone numbers and handles hidden."""
    text = _EMAIL.sub("[e-mail]", text)
    text = _PHONE.sub("[phone]", text)
    return _HANDLE.sub("@[handle]", text)
