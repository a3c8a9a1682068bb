"""The OpenAI-compatible face as an application of its own, mounted at /v1: its errors differ."""

from fastapi import FastAPI
from starlette.datastructures import State

from service.openai import batches, chat, errors, files, fine_tuning, models

DESCRIPTION = """
Existing code for OpenAI's API runs against it: set `base_url` to this address. What isn't listed
here isn't there; what can't be mapped is refused by name.
"""


def create_app(state: State) -> FastAPI:
    """The application; `state` is the outer one's, so that both work on one site."""
    app = FastAPI(title="Retort, OpenAI-compatible", version="0.1.0", description=DESCRIPTION)
    app.state = state
    for router in (
        files.router,
        batches.router,
        fine_tuning.router,
        models.router,
        chat.router,
    ):
        app.include_router(router)
    errors.install(app)
    return app
