"""Figures for Prometheus."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from service.addresses import METRICS

router = APIRouter(tags=["health"])


@router.get(METRICS, response_class=PlainTextResponse)
def show_metrics(request: Request) -> PlainTextResponse:
    """Jobs by state, age of the queues, rows, tokens, teachers: in Prometheus' text form."""
    registry: CollectorRegistry = request.app.state.metrics
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
