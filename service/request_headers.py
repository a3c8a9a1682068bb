"""What a request's headers say of who asks, and whom."""

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key that is shown; None without one."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def cookie(headers: Mapping[str, str], name: str) -> str:
    """A cookie's value; empty without it."""
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def host(headers: Mapping[str, str]) -> str:
    """The host that is asked for, without its port; empty where it is no name."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""
