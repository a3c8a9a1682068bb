"""An API that listens, in a thread of the test's own process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from service.app import create_app
from service.site import Site
from tests.workers.conftest import wait_for


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The URL of an API on this site."""
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
