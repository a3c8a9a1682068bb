"""A FAKE teacher without latency, in a process of its own: what it costs to ask it is the asker's.

python -m benchmarks.stub PORT_FILE
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from aiohttp import web

MODEL = "stub"
START_S = 60.0


def answer(prompt: str) -> str:
    """A function of the prompt, so that both sides can be compared."""
    return f"Done: {crc32(prompt.encode()):08x}"


async def complete(request: web.Request) -> web.Response:
    """One chat completion, at once."""
    body = json.loads(await request.read())
    choice = {
        "message": {"role": "assistant", "content": answer(body["messages"][-1]["content"])},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 20, "completion_tokens": 2}
    return web.json_response({"choices": [choice], "usage": usage})


async def models(_: web.Request) -> web.Response:
    """The one model."""
    return web.json_response({"data": [{"id": MODEL, "max_model_len": 4096, "root": "stub"}]})


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Its URL, as long as the block lasts."""
    port_file = folder / "stub.port"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.stub", str(port_file)])
    try:
        until = time.monotonic() + START_S
        while not port_file.exists():
            if time.monotonic() > until or process.poll() is not None:
                raise TimeoutError("the stub teacher does not come up")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port_file.read_text()}/v1"
    finally:
        process.kill()
        process.wait()


async def _serve(port_file: Path) -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(runner.addresses[0][1]))
    draft.rename(port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
