"""A JSON question to a server, and patience with one that is away."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from trainer.errors import BadInput

TIMEOUT_S = 600.0
PATIENCE_S = 600.0
"""How long a server that is away is waited for; then the run ends, and may go on later."""
LONGEST_PAUSE_S = 30.0
COME_BACK = frozenset({408, 425, 429})


class Refused(Exception):  # noqa: N818  what the server said
    """An answer that asking again doesn't change."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(f"{status}: {told}")
        self.status, self.told = status, told


def post(
    url: str,
    body: dict[str, Any],
    key: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
    patience_s: float = PATIENCE_S,
    timeout_s: float = TIMEOUT_S,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """The answer, a JSON object. Raises Refused, and ConnectionError where nobody has answered for
    `patience_s`; what was asked by then is waited for, `timeout_s` at most."""
    begun, waited, pause = clock(), 0.0, 1.0
    while True:
        try:
            return _once(url, body, key, timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in COME_BACK and error.code < 500:
                    told = error.read(2000).decode("utf-8", "replace").strip()
                    raise Refused(error.code, told) from error
            problem: Exception = error
        except (OSError, HTTPException) as error:
            problem = error
        if max(waited, clock() - begun) >= patience_s:
            raise ConnectionError(f"{url} is away: {problem}") from problem
        sleep(pause)
        waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE_S)


def _once(url: str, body: dict[str, Any], key: str | None, timeout_s: float) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with _OPENER.open(request, timeout=timeout_s) as answer:
        text = answer.read()
    try:
        said = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise BadInput(f"{url} is no server for this", "Its answer isn't JSON.") from error
    return said if isinstance(said, dict) else {}


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
