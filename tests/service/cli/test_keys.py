import json
from pathlib import Path

import pytest

from service import keys
from service.keys import NewKey
from service.site import Site
from tests.service.cli.conftest import Cli


def test_limits_are_set_shown_and_lifted(cli: Cli) -> None:
    made = json.loads(cli("keys", "create", "guest", "--jobs-at-once", "2", "--json").out)
    assert (made["jobs_at_once"], made["tokens_per_day"]) == (2, None)
    said = cli("keys", "limit", made["id"], "--tokens-per-day", "5000", "--jobs-at-once", "0")
    assert said.out.strip().endswith("guest: 5,000 tokens a day")
    said = cli("keys", "limit", made["id"], "--requests-per-minute", "60")
    assert "60 requests a minute, 5,000 tokens a day" in said.out
    shown = cli("keys", "show", made["id"]).out
    assert "0 tokens today, 5,000 at most" in shown
    assert "0 unfinished jobs, no limit" in shown
    assert "60 requests a minute" in cli("keys", "list").out


def test_a_limit_that_is_none_is_refused(cli: Cli) -> None:
    said = cli("keys", "create", "guest", "--jobs-at-once", "-1")
    assert (said.code, "limits.jobs_at_once" in said.err) == (2, True)
    assert cli("keys", "show", "key-x").code == 2


def test_a_login_link_is_for_the_address_that_a_browser_knows(cli: Cli) -> None:
    link = json.loads(cli("login", "--url", "https://retort.example/", "--json").out)["link"]
    assert link.startswith("https://retort.example/login?token=")


def test_keys_are_made_over_the_api_where_the_database_is_not_at_hand(
    site: Site, api: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, admin = keys.create(site, NewKey(name="me", scopes=("admin",)))
    monkeypatch.setenv("RETORT_DATA_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("RETORT_API_KEY", admin)
    at = ("--url", api)
    words = ("keys", "create", "guest", "--scope", "read", "--jobs-at-once", "2", "--json")
    made = json.loads(cli(*words, *at).out)
    assert (made["scopes"], made["jobs_at_once"]) == (["read"], 2)
    assert made["key"].startswith("retort_")
    assert "guest" in cli("keys", "list", *at).out
    lifted = ("--jobs-at-once", "0", "--requests-per-minute", "60")
    said = cli("keys", "limit", made["id"], *lifted, *at)
    assert said.out.strip().endswith("guest: 60 requests a minute")
    assert "0 unfinished jobs, no limit" in cli("keys", "show", made["id"], *at).out
    assert "is revoked" in cli("keys", "revoke", made["id"], *at).out
    monkeypatch.setenv("RETORT_API_KEY", made["key"])
    assert cli("keys", "list", *at).code == 2
    assert not (tmp_path / "elsewhere").exists()
