"""How long a server that is away is waited for."""

from typing import Any

import pytest

from trainer import posting


def test_patience_counts_what_attempts_take_and_not_the_pauses_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that takes questions and answers none."""
    now = 0.0

    def hang(url: str, body: dict[str, Any], key: str | None, timeout_s: float) -> Any:
        nonlocal now
        now += timeout_s
        raise TimeoutError("timed out")

    monkeypatch.setattr(posting, "_once", hang)
    with pytest.raises(ConnectionError, match="is away: timed out"):
        posting.post("http://x", {}, sleep=lambda s: None, patience_s=600, clock=lambda: now)
    assert now == posting.TIMEOUT_S
