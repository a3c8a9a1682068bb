"""Vectors of texts from an OpenAI-compatible /v1/embeddings, kept on disk: asked for once.

A server that is away or busy is asked again for as long as a teacher would be; then the build
pauses for it, as it does for a teacher.
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from service import spans
from service.asking import Endpoint, TeacherError
from service.durable import make_directory, write_durably
from service.retry_after import retry_after_s
from service.shared import Directory, Shared
from service.spans import SpanKind

BATCH = 128
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0
PATIENCE_S = 60.0
COMES_BACK = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses of a server that may answer later; any other says that it has no embeddings for us."""
HELD = 200_000
"""Vectors held in memory; beyond it all are dropped, and come from disk again."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class _Away:
    """The server gave no answer that counts, but may later."""

    problem: str
    retry_after_s: float = 0.0


class Embeddings:
    """Texts in, vectors out. State: what is in memory; the rest is files, one for each set of texts
    that was asked for together (a pool, a chunk's queries)."""

    def __init__(
        self,
        endpoint: Endpoint,
        folder: Path,
        transport: httpx.BaseTransport | None = None,
        shared: Shared | None = None,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint, self._folder, self._transport = endpoint, folder, transport
        self._shared, self._patience_s = shared or Directory(), patience_s
        self._sleep, self._clock = sleep, clock
        self._held: dict[str, Vectors] = {}
        self._width: int | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """[N, D] for N texts, in their order. Raises TeacherError if the server can't give them:
        one that pauses the job if it was silent for the patience."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._held]
        if missing:
            if len(self._held) + len(missing) > HELD:
                self._held.clear()
                missing = list(dict.fromkeys(texts))
            self._held.update(zip(missing, self._comparable(self._stored(missing)), strict=True))
        return np.stack([self._held[text] for text in texts])

    def _comparable(self, vectors: Vectors) -> Vectors:
        """The vectors, if they are as wide as those before: another model's say nothing beside."""
        before, self._width = self._width or vectors.shape[1], vectors.shape[1]
        if before != self._width:
            name, url = self._endpoint.name, self._endpoint.base_url
            raise TeacherError(
                "paused_teacher_changed",
                f"embedder {name} at {url} is not the one that this job began with: its vectors"
                f" were {before} numbers wide, and are {self._width}. Serve that one again and"
                " resume; or register the new one under a name and address of its own, and clone"
                " the job with that.",
            )
        return vectors

    def _stored(self, texts: list[str]) -> Vectors:
        path = self._folder / f"{self._digest(texts)}.npy"
        self._shared.pull(path)
        if path.is_file():
            held: Vectors = np.load(path, allow_pickle=False)
            return held
        starts = range(0, len(texts), BATCH)
        with httpx.Client(transport=self._transport) as http:
            parts = [self._fetched(http, texts[at : at + BATCH]) for at in starts]
        vectors = np.concatenate(parts)
        data = io.BytesIO()
        np.save(data, vectors, allow_pickle=False)
        make_directory(self._folder)
        write_durably(path, data.getvalue())
        self._shared.push(path)
        return vectors

    def _digest(self, texts: list[str]) -> str:
        digest = sha256(f"{self._endpoint.base_url}\n{self._endpoint.model}".encode())
        for text in texts:
            digest.update(sha256(text.encode()).digest())
        return digest.hexdigest()[:32]

    def _fetched(self, http: httpx.Client, texts: list[str]) -> Vectors:
        until, wait_s = self._clock() + self._patience_s, FIRST_WAIT_S
        while True:
            found = self._attempt(http, texts)
            if not isinstance(found, _Away):
                return found
            left_s = until - self._clock()
            if left_s <= 0:
                raise self._away(found.problem)
            self._sleep(min(max(wait_s, found.retry_after_s), left_s))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _attempt(self, http: httpx.Client, texts: list[str]) -> "Vectors | _Away":
        try:
            answer = self._post(http, texts)
        except httpx.HTTPError as error:
            return _Away(f"{type(error).__name__}: {error}")
        if answer.status_code == 200:
            return self._vectors(answer, len(texts))
        problem = f"HTTP {answer.status_code}: {answer.text[:300]}"
        if answer.status_code not in COMES_BACK:
            raise self._error(problem)
        return _Away(problem, retry_after_s(answer.headers) or 0.0)

    def _post(self, http: httpx.Client, texts: list[str]) -> httpx.Response:
        with spans.span("POST embeddings", SpanKind.CLIENT, teacher=self._endpoint.name) as span:
            answer = http.post(
                f"{self._endpoint.base_url}/embeddings",
                json={"model": self._endpoint.model, "input": texts},
                headers=self._endpoint.headers,
                timeout=self._endpoint.timeout_s,
            )
            if span is not None:
                span.set_attribute("http.response.status_code", answer.status_code)
        return answer

    def _vectors(self, answer: httpx.Response, count: int) -> Vectors:
        try:
            body: Any = answer.json()
            rows = sorted(body["data"], key=lambda row: row["index"])
            vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(f"no embeddings in its answer: {error}") from error
        if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
            raise self._error(f"{count} vectors were asked for, an array {vectors.shape} came")
        return vectors

    def _away(self, problem: str) -> TeacherError:
        return TeacherError(
            "paused_teacher",
            f"embedder {self._endpoint.name} at {self._endpoint.base_url} does not answer"
            f" ({problem}). Start it: the job goes on by itself when it answers. Nothing that was"
            " paid for is lost.",
        )

    def _error(self, problem: str) -> TeacherError:
        name, url = self._endpoint.name, self._endpoint.base_url
        return TeacherError(
            "embedder_unusable",
            f"embedder {name} at {url} gives no embeddings ({problem}). It must be a server with"
            " /v1/embeddings; what it gave before is kept.",
        )
