"""What routes are given."""

from typing import Annotated, Any

from fastapi import Depends, Request

from service.site import Site


def site_of(request: Request) -> Site:
    """The installation that the app was made for."""
    site: Site = request.app.state.site
    return site


TheSite = Annotated[Site, Depends(site_of)]

_FAULT = {
    "type": "object",
    "properties": {"location": {"type": "string"}, "message": {"type": "string"}},
}
_PROBLEM = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "instance")},
        "status": {"type": "integer"},
        "errors": {"type": "array", "items": _FAULT},
    },
    "required": ["type", "title", "status", "detail"],
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/problem+json": {"schema": _PROBLEM}},
    }
    for status, description in {
        404: "No such thing; `detail` lists near names.",
        409: "In conflict with something that stands.",
        422: "Something in the request can't work; `errors` say where.",
    }.items()
}
