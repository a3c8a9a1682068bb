"""Completions by what was asked, shared by the jobs that opt in: `cache/<2>/<62>` under the root.

The key holds everything that an answer depends on: the rendered prompt, who the teacher is, the
sampling with its seed, and which sample it is. A file is written whole or not at all, so workers
need no lock; what can't be read is asked again.
"""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from prompts.dataset.files import write_text
from prompts.plan import REFUSED, Request
from prompts.record import Call
from prompts.tools import as_sent
from service.identity import Identity
from service.shared import Directory, Shared, StorageAwayError

log = logging.getLogger(__name__)


class Cache:
    """The completions under one artifact root."""

    def __init__(self, root: Path, shared: Shared | None = None) -> None:
        self._root, self._shared = root / "cache", shared or Directory()

    def key(self, request: Request, teacher: Identity) -> str:
        """SHA-256 of all that the answer depends on, hex."""
        asked = {
            "messages": [message.model_dump() for message in request.messages],
            "teacher": teacher.model_dump(),
            "sampling": request.sampling.model_dump(),
            "tools": as_sent(request.tools),
            "schema": request.schema and dict(request.schema),
            "signal_top_k": request.signal_top_k,
            "sample": request.sample,
            "tokens": request.tokens and asdict(request.tokens),
        } | ({"signal_draws": request.signal_draws} if request.signal_draws else {})
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def get(self, key: str, request: Request) -> Call | None:
        """The answer as this request's own; None if it is not there."""
        try:
            self._shared.pull(self._path(key))
            known = Call.model_validate_json(self._path(key).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        except StorageAwayError as error:
            log.warning("the cache is not asked: %s", error)
            return None
        place = {"row": request.row, "step": request.step, "sample": request.sample}
        return known.model_copy(update=place)

    def put(self, key: str, call: Call) -> None:
        """Keep an answer. Refusals are not kept: the next one may have better luck."""
        path = self._path(key)
        if call.finish_reason == REFUSED or path.exists():
            return
        write_text(path, call.model_dump_json())
        try:
            self._shared.push(path)
        except StorageAwayError as error:
            log.warning("other hosts' caches lack an answer: %s", error)

    def _path(self, key: str) -> Path:
        return self._root / key[:2] / key[2:]
