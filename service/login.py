"""Login links and session cookies for the dashboard, signed with the installation's secret."""

import secrets
from dataclasses import dataclass
from urllib.parse import urlencode

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from prompts.record import Frozen
from service.problems import Problem
from service.secret import secret_of
from service.settings import Settings
from service.site import Site
from service.tables import UsedLink

COOKIE = "retort_session"
LINK_S = 15 * 60
SESSION_S = 7 * 24 * 3600


class Ticket(Frozen):
    """What a session cookie says. Signed, not encrypted: nothing in it is a secret to its owner."""

    csrf: str
    """What forms must give back: no other site can read it."""
    key_id: str | None = None
    """The key that opened the session; its scopes are the session's, until it is revoked."""
    by_link: bool = False
    """Opened by a login link: whoever reads the terminal of `retort up` may do everything."""


@dataclass(frozen=True)
class Seals:
    """What signs."""

    links: URLSafeTimedSerializer
    sessions: URLSafeTimedSerializer


def new_ticket(*, key_id: str | None = None, by_link: bool = False) -> Ticket:
    """A session that begins now."""
    return Ticket(csrf=secrets.token_urlsafe(24), key_id=key_id, by_link=by_link)


def sealed(settings: Settings, ticket: Ticket) -> str:
    """The cookie's value."""
    return str(_seals(settings).sessions.dumps(ticket.model_dump(mode="json")))


def opened(settings: Settings, cookie: str) -> Ticket | None:
    """The session of a cookie; None for one that is forged, old or of an earlier release."""
    try:
        content = _seals(settings).sessions.loads(cookie, max_age=SESSION_S)
        return Ticket.model_validate(content)
    except (BadSignature, ValidationError):
        return None


def link(settings: Settings, url: str) -> str:
    """A link that logs in whoever opens it first, within LINK_S."""
    token = _seals(settings).links.dumps(secrets.token_hex(16))
    return f"{url}/login?{urlencode({'token': token})}"


def redeem(site: Site, token: str) -> Ticket:
    """A session for a login link. Raises a 403 problem for one that was changed, is too old, or was
    used before."""
    try:
        link_id = str(_seals(site.settings).links.loads(token, max_age=LINK_S))
    except SignatureExpired as error:
        raise _refused("It is too old.") from error
    except BadSignature as error:
        raise _refused("It is not one of this installation's; was it copied whole?") from error
    try:
        with site.sessions.writing.begin() as session:
            session.add(UsedLink(id=link_id))
    except IntegrityError as error:
        raise _refused("It was used before.") from error
    return new_ticket(by_link=True)


def _seals(settings: Settings) -> Seals:
    secret = secret_of(settings)
    return Seals(
        URLSafeTimedSerializer(secret, salt="retort login link"),
        URLSafeTimedSerializer(secret, salt="retort session"),
    )


def _refused(why: str) -> Problem:
    detail = f"{why} `retort login` prints a new one."
    return Problem(403, "login-link", "This login link can't be used", detail)
