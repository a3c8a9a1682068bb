"""API keys: make, list, revoke. Needs the scope `admin`."""

from typing import Annotated

from fastapi import APIRouter, Body

from service import keys
from service.keys import NewKey
from service.routes.deps import PROBLEMS, TheSite
from service.routes.examples import KEYS
from service.views import KeyView, MadeKey, key_view, made_key

router = APIRouter(prefix="/keys", tags=["keys"], responses=PROBLEMS)


@router.post("", status_code=201)
def create_key(site: TheSite, wanted: Annotated[NewKey, Body(openapi_examples=KEYS)]) -> MadeKey:
    """Make a key. It is shown in this answer and never again. From the first one on, every request
    needs one."""
    return made_key(*keys.create(site, wanted))


@router.get("")
def list_keys(site: TheSite) -> list[KeyView]:
    """All keys, newest first, revoked ones too."""
    return [key_view(key) for key in keys.listing(site)]


@router.post("/{key_id}/revoke")
def revoke_key(site: TheSite, key_id: str) -> KeyView:
    """Make a key useless from now on, and the sessions that it opened."""
    return key_view(keys.revoke(site, key_id))
