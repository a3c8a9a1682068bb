"""Short visits to the database from threads."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session, sessionmaker

T = TypeVar("T")


def in_session(writing: "sessionmaker[Session]", act: Callable[..., T], *args: Any) -> T:
    """Call `act(session, *args)` with a session of its own."""
    with writing() as session:
        return act(session, *args)
