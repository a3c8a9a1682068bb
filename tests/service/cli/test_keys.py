import json

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
