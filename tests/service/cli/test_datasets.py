"""`retort datasets`: push, with a FAKE in the place of the hub's client; show."""

import json
from pathlib import Path

import pytest

from service import hub
from tests.service.cli.conftest import Cli
from tests.service.test_hub import FakeHub


def imported(cli: Cli, api: str, folder: Path) -> None:
    rows = folder / "stories.jsonl"
    rows.write_text(json.dumps({"prompt": "2 + 2?", "completion": "4"}) + "\n")
    assert cli("datasets", "import", str(rows), "--url", api).code == 0


def test_a_version_is_pushed_under_the_environments_token(
    api: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(cli, api, tmp_path)
    there, tokens = FakeHub(), []

    def connect(token: str) -> FakeHub:
        tokens.append(token)
        return there

    monkeypatch.setattr(hub, "HfApi", connect)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    words = ("datasets", "push", "stories@1", "--repo", "me/stories", "--private")
    said = cli(*words, "--url", api, "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["pushed"] == "https://huggingface.co/datasets/me/stories"
    assert tokens == ["hf_secret"]
    assert "hf_secret" not in said.out + said.err
    assert there.created[0]["private"] is True
    assert there.commits[0].startswith("stories version 1 (ds-")
    manifest = json.loads(there.files["manifest.json"])
    assert {file["path"] for file in manifest["files"]} | {"README.md", "recipe.yaml"} <= set(
        there.files
    )


def test_without_a_token_or_a_name_nothing_is_sent(
    api: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = cli("datasets", "push", "stories", "--repo", "me/stories", "--url", api)
    assert (said.code, "Set HF_TOKEN" in said.err) == (2, True)
    said = cli("datasets", "push", "stories", "--repo", "stories", "--url", api)
    assert (said.code, "say owner/name" in said.err) == (2, True)


def test_calls_of_functions_are_shown_with_the_rows(api: str, cli: Cli, tmp_path: Path) -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    said = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    rows = tmp_path / "calls.jsonl"
    rows.write_text(json.dumps({"prompt": "Oslo?", "completion": said}) + "\n")
    assert cli("datasets", "import", str(rows), "--url", api).code == 0
    shown = cli("datasets", "show", "calls", "--url", api)
    assert 'assistant: weather({"city": "Oslo"})' in shown.out
