"""Putting a dataset onto the Hugging Face hub: only ever because a person said so.

The client comes from `huggingface_hub`; its token is the environment's, never an argument.
"""

import re
from pathlib import Path
from typing import Any, Protocol

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from service.settings import secret

TOKEN = "HF_TOKEN"
OWN_FILES = ("data/*", "rejected/*", "signal/*")
"""What an earlier version may have left there and this one hasn't."""


_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Hub(Protocol):
    """What is needed of `huggingface_hub.HfApi`."""

    def create_repo(
        self, repo_id: str, *, private: bool, repo_type: str, exist_ok: bool
    ) -> Any: ...

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any: ...

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: Path,
        repo_type: str,
        commit_message: str,
        delete_patterns: list[str],
    ) -> Any: ...


class PushError(Exception):
    """Nothing was pushed, or not all; `title` says what is wrong, `detail` what to do."""

    def __init__(self, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}")
        self.title, self.detail = title, detail


def open_hub() -> Hub:
    """The hub under the environment's token. Raises PushError without one."""
    token = secret(TOKEN)
    if token is None:
        raise PushError(
            "No token for the hub",
            f"Set {TOKEN} to a token that may write (https://huggingface.co/settings/tokens).",
        )
    return HfApi(token=token)


def check_repo(repo: str) -> None:
    """Raises PushError for what can't be `owner/name`; the hub's client knows more."""
    if _NAME.fullmatch(repo) is None:
        raise PushError("No name of a repository", f"{repo!r}: say owner/name.")


def push(hub: Hub, folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Makes a dataset directory the content of a dataset repository, in one commit; its URL.

    A repository that is there already keeps its visibility. Raises PushError, also where `private`
    is asked for and the repository is public: before anything is sent.
    """
    try:
        hub.create_repo(repo, private=private, repo_type="dataset", exist_ok=True)
        if private and not hub.repo_info(repo, repo_type="dataset").private:
            raise PushError(
                "The repository is public",
                f"{repo} is there already and everybody can read it. Nothing was sent: make it "
                "private on the hub, name another, or leave --private out.",
            )
        hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="dataset",
            commit_message=message,
            delete_patterns=list(OWN_FILES),
        )
    except HFValidationError as error:
        raise PushError("No name of a repository", f"{repo!r}: {error}") from error
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except (OfflineModeIsEnabled, httpx.TransportError, ConnectionError) as error:
        raise PushError(
            "The hub can't be reached", f"{error}. Without network nothing can be pushed."
        ) from error
    return f"https://huggingface.co/datasets/{repo}"


def _refused(repo: str, error: HfHubHTTPError) -> PushError:
    status = error.response.status_code
    if status in (401, 403):
        detail = f"{TOKEN} may not write to {repo} (HTTP {status})."
        return PushError("The hub refused the token", detail)
    return PushError("The hub refused", f"HTTP {status}: {str(error).strip()[:500]}")
