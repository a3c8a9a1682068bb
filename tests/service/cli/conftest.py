"""The command line against a real API over HTTP, its broker a fake."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from service.cli import main
from service.site import Site
from tests.service.served import served


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
    with served(site) as url:
        yield url


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
