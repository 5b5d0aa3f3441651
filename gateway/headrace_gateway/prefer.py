"""The header Prefer (RFC 7240): how long a request waits for an outcome."""

from __future__ import annotations

import re

import msgspec
from starlette.datastructures import Headers

#: A preference: its name and its value, which may be quoted. What follows a semicolon are parameters.
_PREFERENCE = re.compile(r'\s*([A-Za-z-]+)\s*(?:=\s*(?:"([^"]*)"|([^\s,;"]*)))?[^,]*(?:,|$)')


class Preference(msgspec.Struct, frozen=True):
    """The preferences of a request about waiting. An unknown or malformed one is ignored, as the RFC asks."""

    #: Seconds to wait for an outcome; None where the request does not say.
    wait: float | None = None
    #: True if the request prefers an answer at once to one with the outcome.
    respond_async: bool = False

    def seconds(self, default: float, maximum: float) -> float:
        """Return the seconds to wait: those of the request up to `maximum`, else `default`; 0: do not wait."""
        if self.wait is not None:
            return min(self.wait, maximum)
        return 0.0 if self.respond_async else default

    def applied(self, maximum: float) -> str | None:
        """Return the value of Preference-Applied; None if there was no preference."""
        if self.wait is not None:
            return f"wait={min(self.wait, maximum):.0f}"
        return "respond-async" if self.respond_async else None


_NONE = Preference()


def parse_prefer(headers: Headers) -> Preference:
    """Return the preferences in the headers of a request. The first of several `wait` counts."""
    text = ",".join(headers.getlist("prefer"))
    if not text:
        return _NONE
    wait, respond_async = None, False
    for name, quoted, plain in _PREFERENCE.findall(text[:1000]):
        value = quoted or plain
        match name.lower():
            case "wait" if wait is None and value.isascii() and value.isdecimal():
                wait = float(value[:9])
            case "respond-async":
                respond_async = True
    return Preference(wait, respond_async)
