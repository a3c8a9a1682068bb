"""What routes are given."""

from typing import Annotated, Any

from fastapi import Depends, Request

from service.access import Caller
from service.site import Site
from service.turns import Turns


def site_of(request: Request) -> Site:
    """The installation that the app was made for."""
    site: Site = request.app.state.site
    return site


def caller_of(request: Request) -> Caller:
    """Whoever asks, as the gate found."""
    caller: Caller = request.state.caller
    return caller


def turns_of(request: Request) -> Turns:
    """The chats under way in this process."""
    turns: Turns = request.app.state.turns
    return turns


TheSite = Annotated[Site, Depends(site_of)]
TheCaller = Annotated[Caller, Depends(caller_of)]
TheTurns = Annotated[Turns, Depends(turns_of)]

_FAULT = {
    "type": "object",
    "properties": {"location": {"type": "string"}, "message": {"type": "string"}},
}
_PROBLEM = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("type", "code", "title", "detail", "instance")},
        "status": {"type": "integer"},
        "errors": {"type": "array", "items": _FAULT},
    },
    "required": ["type", "code", "title", "status", "detail"],
}


def documented(statuses: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Problem documents of these statuses, for the API's documentation."""
    content = {"application/problem+json": {"schema": _PROBLEM}}
    return {
        status: {"description": description, "content": content}
        for status, description in statuses.items()
    }


AT_THE_GATE = documented(
    {
        401: "A key is needed, or the one shown doesn't hold.",
        403: "The key lacks the scope, or the request may be forged.",
        429: "A limit of the key is reached; `Retry-After` says in how many seconds to come back.",
        503: "The database can't be used just now.",
    }
)
"""What every route of the API may be answered with before it begins."""
PROBLEMS = AT_THE_GATE | documented(
    {
        404: "No such thing; `detail` lists near names.",
        409: "In conflict with something that stands.",
        413: "The request is too large.",
        422: "Something in the request can't work; `errors` say where.",
    }
)
