"""A FAKE of vLLM's server, in this process: the two routes that a training asks, answered by a tiny
model on this CPU as vLLM answers them, and by what a test tells it to do wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass
class Fake:
    """What it serves, and what it was asked."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    url: str = ""
    longest: int = 128
    most: int = 61
    """--max-logprobs"""
    away: int = 0
    """So many requests are answered with 503."""
    told: dict[str, Any] | None = None
    """In the place of log-probs."""
    asked: list[list[int]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body."""
        if self.away:
            self.away -= 1
            return 503, {"message": "starting"}
        if body["model"] != "big":
            return 404, {"message": f"no model {body['model']}"}
        if path == "/tokenize":
            ids = self.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
            return 200, {"tokens": ids, "max_model_len": self.longest}
        assert path == "/v1/completions"
        k = body["prompt_logprobs"]
        if k > self.most:
            return 400, {"message": f"requested {k} logprobs, at most {self.most} are allowed"}
        self.asked.append(body["prompt"])
        places = self.told or {"prompt_logprobs": self._places(body["prompt"], k)}
        return 200, {"choices": [places]}

    @torch.no_grad()
    def _places(self, ids: list[int], k: int) -> list[Any]:
        log_p = self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return [None, *(self._place(log_p[t], ids[t + 1], k) for t in range(len(ids) - 1))]

    def _place(self, log_p: torch.Tensor, own: int, k: int) -> dict[str, Any]:
        order = log_p.argsort(descending=True).tolist()
        chosen = {own: order.index(own) + 1} | {one: r for r, one in enumerate(order[:k], start=1)}
        return {
            str(one): {"logprob": float(log_p[one]), "rank": rank, "decoded_token": str(one)}
            for one, rank in chosen.items()
        }


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """The fake at an address of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.keys.append(self.headers["Authorization"])
            status, said = fake.answer(self.path, body)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *given: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
