"""The command line against a real API over HTTP, its broker a fake."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from service.app import create_app
from service.cli import main
from service.site import Site
from tests.workers.conftest import wait_for


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def api(site: Site) -> Iterator[str]:
    """An API on this site; its URL."""
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Site) -> Cli:
    """Runs `retort` with these words, as the shell would."""
    monkeypatch.setenv("RETORT_DATA_DIR", str(site.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["retort", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run
