"""Vectors of texts from an OpenAI-compatible /v1/embeddings, kept on disk: asked for once."""

import io
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from service import spans
from service.asking import Endpoint, TeacherError
from service.durable import make_directory, write_durably
from service.shared import Directory, Shared
from service.spans import SpanKind

BATCH = 128
ATTEMPTS = 6
FIRST_WAIT_S = 0.5
HELD = 200_000
"""Vectors held in memory; beyond it all are dropped, and come from disk again."""

Vectors = NDArray[np.float32]


class Embeddings:
    """Texts in, vectors out. State: what is in memory; the rest is files, one for each set of texts
    that was asked for together (a pool, a chunk's queries)."""

    def __init__(
        self,
        endpoint: Endpoint,
        folder: Path,
        http: httpx.Client,
        shared: Shared | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint, self._folder, self._http = endpoint, folder, http
        self._shared, self._sleep = shared or Directory(), sleep
        self._held: dict[str, Vectors] = {}

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """[N, D] for N texts, in their order. Raises TeacherError if the server can't give them."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._held]
        if missing:
            if len(self._held) + len(missing) > HELD:
                self._held.clear()
                missing = list(dict.fromkeys(texts))
            self._held.update(zip(missing, self._stored(missing), strict=True))
        return np.stack([self._held[text] for text in texts])

    def _stored(self, texts: list[str]) -> Vectors:
        path = self._folder / f"{self._digest(texts)}.npy"
        self._shared.pull(path)
        if path.is_file():
            held: Vectors = np.load(path, allow_pickle=False)
            return held
        starts = range(0, len(texts), BATCH)
        vectors = np.concatenate([self._fetched(texts[at : at + BATCH]) for at in starts])
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

    def _fetched(self, texts: list[str]) -> Vectors:
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            try:
                answer = self._post(texts)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code == 200:
                return self._vectors(answer, len(texts))
            problem = f"HTTP {answer.status_code}: {answer.text[:300]}"
            if answer.status_code < 500 and answer.status_code not in (408, 409, 425, 429):
                break
        raise self._error(problem)

    def _post(self, texts: list[str]) -> httpx.Response:
        with spans.span("POST embeddings", SpanKind.CLIENT, teacher=self._endpoint.name) as span:
            answer = self._http.post(
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

    def _error(self, problem: str) -> TeacherError:
        name, url = self._endpoint.name, self._endpoint.base_url
        return TeacherError(
            "embedder_unusable",
            f"embedder {name} at {url} gives no embeddings ({problem}). It must be a server with"
            " /v1/embeddings; what it gave before is kept.",
        )
