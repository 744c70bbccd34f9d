"""The only place where an error text, URL or DSN is made safe to show."""

from __future__ import annotations

import re

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

#: Greedy: a password that was not percent-encoded may itself hold ``@`` and ``/``.
_CREDENTIALS = re.compile(r"(?P<scheme>[a-zA-Z][\w+.-]*://)\S*@")


def url(text: str) -> str:
    """A database URL without user name, password and options."""
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):
        return "<unreadable database URL>"
    host = f"{parsed.host or ''}{f':{parsed.port}' if parsed.port else ''}"
    return f"{parsed.get_backend_name()}://{host}/{parsed.database or ''}"


def credentials(text: str) -> str:
    """Any text with the user part of its URLs blanked."""
    return _CREDENTIALS.sub(r"\g<scheme>***@", text)


def driver_error(error: BaseException) -> str:
    """A driver's error as its class and numeric code: its text may quote rows or statements."""
    code = next((arg for arg in error.args if isinstance(arg, int)), None)
    code = code if code is not None else getattr(error, "pgcode", None)
    name = type(error).__name__
    return f"{name} {code}" if code is not None else name
