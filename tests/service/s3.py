"""A real S3 server of this machine (moto's), and a line to it that can be cut."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import uuid4

import boto3
import pytest

KEYS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class S3Server:
    """A running server; each test takes a bucket of its own."""

    port: int

    @staticmethod
    @contextmanager
    def started(folder: Path) -> Iterator["S3Server"]:
        """Start one, and kill it afterwards."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with (folder / "s3.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | KEYS)
        try:
            server = S3Server(port)
            server._wait(process)
            yield server
        finally:
            process.kill()
            process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def new_bucket(self) -> str:
        """s3:// of an empty bucket."""
        name = f"retort-{uuid4().hex}"
        self._client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def objects(self, url: str) -> list[str]:
        """The keys in a bucket, as any other client sees them."""
        listing = self._client().list_objects_v2(Bucket=url.removeprefix("s3://"))
        return [each["Key"] for each in listing.get("Contents", [])]

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody's credentials are good."""
        self._post("/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._post("/moto-api/reset-auth", b"inf")

    def _client(self):  # type: ignore[no-untyped-def]  # boto3 makes its classes as it runs
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )

    def _post(self, path: str, body: bytes) -> None:
        asked = Request(f"{self.url}{path}", data=body, headers={"Content-Type": "text/plain"})
        urlopen(asked).close()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            with suppress(URLError, ConnectionError):
                urlopen(f"{self.url}/moto-api/data.json").close()
                return
            time.sleep(0.1)
        raise AssertionError("the S3 server never answered")


class Line:
    """A fake network: passes bytes on to a server, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._left: int | None = None
        """Bytes towards the server that still pass; None: any number."""
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self, after_bytes: int = 0) -> None:
        """Let so many more bytes pass to the server, then none until it is mended."""
        self._left = after_bytes
        if after_bytes == 0:
            self._hang_up()

    def mend(self) -> None:
        self._left = None

    def close(self) -> None:
        self._listener.close()
        self._hang_up()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._left == 0:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for pair in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                if upwards and self._left is not None:
                    self._left = max(0, self._left - len(block))
                    if self._left == 0:
                        self._hang_up()
                        break
                target.sendall(block)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        source.close()

    def _hang_up(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets = []


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server.started(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket, with the environment that reaches it."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": s3_server.url}).items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture
def line(bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The line to the bucket's server."""
    opened = Line(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", opened.url)
    yield opened
    opened.close()
