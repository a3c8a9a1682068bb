"""API keys: make, list, limit, revoke. Needs the scope `admin`."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from service import keys, quotas
from service.keys import NewKey
from service.pages import cut
from service.quotas import Limits
from service.routes.deps import PROBLEMS, TheSite
from service.routes.examples import KEYS, LIMITS
from service.tables import now
from service.views import KeyDetail, KeyPage, KeyView, MadeKey, key_detail, key_view, made_key

router = APIRouter(prefix="/keys", tags=["keys"], responses=PROBLEMS)


@router.post("", status_code=201)
def create_key(site: TheSite, wanted: Annotated[NewKey, Body(openapi_examples=KEYS)]) -> MadeKey:
    """Make a key. It is shown in this answer and never again. From the first one on, every request
    needs one."""
    return made_key(*keys.create(site, wanted))


@router.get("")
def list_keys(
    site: TheSite,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> KeyPage:
    """Keys, newest first, revoked ones too."""
    page, more = cut(keys.listing(site, cursor, limit + 1), limit, lambda key: key.id)
    return KeyPage(keys=[key_view(key) for key in page], next=more)


@router.get("/{key_id}")
def show_key(site: TheSite, key_id: str) -> KeyDetail:
    """A key, with its limits and what it has used of them."""
    with site.sessions.reading() as session:
        key = keys.get(session, key_id)
        return key_detail(key, quotas.usage(session, key, now()))


@router.patch("/{key_id}/limits")
def limit_key(
    site: TheSite, key_id: str, wanted: Annotated[Limits, Body(openapi_examples=LIMITS)]
) -> KeyView:
    """Set the limits that are given; null lifts one. They hold from the next request on."""
    return key_view(keys.limit(site, key_id, wanted))


@router.post("/{key_id}/revoke")
def revoke_key(site: TheSite, key_id: str) -> KeyView:
    """Make a key useless from now on, and the sessions that it opened."""
    return key_view(keys.revoke(site, key_id))
