"""A FAKE teacher whose every answer carries markup: an OpenAI-like server in a thread."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.service.dashboard.world import XSS

MODEL = "hostile"


class Hostile(BaseHTTPRequestHandler):
    """Adds the last two numbers of a prompt; sums that 5 divides are wrong. Slow, to be watched."""

    def do_GET(self) -> None:
        self._say({"object": "list", "data": [{"id": MODEL, "max_model_len": 4096}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(0.05)
        prompt = body["messages"][-1]["content"]
        total = sum(int(number) for number in re.findall(r"\d+", prompt)[-2:])
        said = total + 1 if total % 5 == 0 else total
        text = f"{XSS[total % len(XSS)]} It makes {said}. The answer is {said}."
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 20, "completion_tokens": 10 + total % 9}
        self._say({"choices": [choice | {"finish_reason": "stop"}], "usage": usage})

    def _say(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def hostile_teacher() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
