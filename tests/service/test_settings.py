import os
from pathlib import Path

import pytest

from service import settings
from service.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    assert f"`RETORT_{name.upper()}`" in DOCUMENT.read_text()


def test_nothing_documented_is_gone() -> None:
    documented = {
        word.removeprefix("`RETORT_").rstrip("`").lower()
        for word in DOCUMENT.read_text().split()
        if word.startswith("`RETORT_") and word.endswith("`")
    }
    assert documented == set(Settings.model_fields)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RETORT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RETORT_PORT", "9000")

    loaded = settings.load()

    assert loaded.api_url == "http://127.0.0.1:9000"
    assert loaded.database_url == f"sqlite:///{tmp_path}/retort.db"
    assert loaded.artifact_root == tmp_path / "artifacts"


def test_none_in_the_environment_lifts_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load().keep_ledgers_days == 90
    monkeypatch.setenv("RETORT_KEEP_LEDGERS_DAYS", "none")
    assert settings.load().keep_ledgers_days is None


def test_a_deep_data_directory_gets_a_socket_path_that_the_kernel_takes(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)

    socket = settings.broker_socket(deep)

    assert len(os.fsencode(socket)) <= settings.UNIX_SOCKET_PATH_LIMIT
    assert socket == settings.broker_socket(deep)
    assert socket != settings.broker_socket(tmp_path / ("e" * 120))
