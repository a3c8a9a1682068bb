"""Pushing a dataset, against a FAKE of the hub's client; nothing leaves this machine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from service.hub import PushError, check_repo, open_hub, push


class FakeHub:
    """FAKE of `HfApi`: keeps what it is sent, or raises what it is told to."""

    def __init__(self, public: bool = False, fault: Exception | None = None) -> None:
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {"data/train-00000-of-00002.parquet": b"old"}
        self.commits: list[str] = []
        self._public, self._fault = public, fault

    def create_repo(self, repo_id: str, **given: Any) -> None:
        self.created.append({"repo_id": repo_id} | given)

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        return SimpleNamespace(private=not self._public)

    def upload_folder(self, **given: Any) -> None:
        if self._fault is not None:
            raise self._fault
        for pattern in given["delete_patterns"]:
            gone = [name for name in self.files if Path(name).match(pattern)]
            self.files = {name: self.files[name] for name in self.files if name not in gone}
        for path in Path(given["folder_path"]).rglob("*"):
            if path.is_file():
                self.files[path.relative_to(given["folder_path"]).as_posix()] = path.read_bytes()
        self.commits.append(given["commit_message"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"new")
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("private", [False, True])
def test_the_repository_holds_this_version_and_nothing_of_the_last(
    folder: Path, private: bool
) -> None:
    there = FakeHub()
    url = push(there, folder, "me/stories", private=private, message="stories version 2")
    assert url == "https://huggingface.co/datasets/me/stories"
    assert set(there.files) == {"data/train-00000-of-00001.parquet", "manifest.json"}
    (created,) = there.created
    assert (created["private"], created["repo_type"]) == (private, "dataset")
    assert there.commits == ["stories version 2"]


def test_a_public_repository_is_not_taken_for_a_private_one(folder: Path) -> None:
    there = FakeHub(public=True)
    with pytest.raises(PushError, match="is public"):
        push(there, folder, "me/stories", private=True, message="m")
    assert there.commits == []
    push(there, folder, "me/stories", private=False, message="m")


def refusal(status: int) -> HfHubHTTPError:
    response = httpx.Response(status, request=httpx.Request("POST", "https://huggingface.co"))
    return HfHubHTTPError("no", response=response)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refusal(403), r"refused the token: HF_TOKEN may not write to me/stories \(HTTP 403\)"),
        (refusal(413), "The hub refused: HTTP 413: no"),
        (OfflineModeIsEnabled("offline mode is enabled"), "can't be reached: offline mode"),
        (httpx.ConnectError("no route"), "can't be reached: no route"),
        (HFValidationError("no --"), "No name of a repository: 'me/stories': no --"),
    ],
)
def test_what_went_wrong_is_said(folder: Path, fault: Exception, words: str) -> None:
    with pytest.raises(PushError, match=words):
        push(FakeHub(fault=fault), folder, "me/stories", private=False, message="m")


@pytest.mark.parametrize("repo", ["stories", "me/stories/more", "me/st ories", ""])
def test_names_of_no_repository_are_refused(repo: str) -> None:
    with pytest.raises(PushError, match="No name of a repository"):
        check_repo(repo)


def test_the_token_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(PushError, match="Set HF_TOKEN"):
        open_hub()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    client = open_hub()
    assert isinstance(client, HfApi)
    assert client.token == "hf_secret"
