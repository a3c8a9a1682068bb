"""ASGI middleware: each request belongs to its caller's trace, or begins one, and is a span of
it."""

from fastapi.routing import APIRoute
from opentelemetry.trace import StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import spans
from service.addresses import ALIVE, METRICS, READY
from service.spans import Span, SpanKind
from service.tracing import HEADER, begun, parsed, under

UNRECORDED = (ALIVE, READY, METRICS, "/static/")
"""What is asked all the time and tells nothing of anybody's work."""


class Tracing:
    """The middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = parsed(Headers(scope=scope).get(HEADER))
        if scope["path"].startswith(UNRECORDED):
            with under(given.child() if given is not None else begun()):
                await self._app(scope, receive, send)
            return
        with spans.recorded(given, scope["method"], SpanKind.SERVER) as span:
            await self._app(scope, receive, _noting(span, scope, send))


def _noting(span: Span | None, scope: Scope, send: Send) -> Send:
    """`send`, which puts the route and the status onto the span as they become known."""
    if span is None:
        return send

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            route = _route(scope)
            span.set_attribute("http.request.method", scope["method"])
            span.set_attribute("http.response.status_code", int(message["status"]))
            if route is not None:
                span.set_attribute("http.route", route)
                span.update_name(f"{scope['method']} {route}")
            if message["status"] >= 500:
                span.set_status(StatusCode.ERROR)
        await send(message)

    return noting


def _route(scope: Scope) -> str | None:
    """The path as it is documented, without anybody's ids; None where no route was found."""
    route, path = scope.get("route"), str(scope["path"])
    if not isinstance(route, APIRoute):
        return None
    # An included router's route knows its own end of the path only.
    own = route.path_format
    return path.removesuffix(own.format(**scope["path_params"])) + own
