"""Models: list, show, download."""

from service.routes.artifacts import artifact_router

router = artifact_router("model")
