import json
import logging
import sys

import pytest

from service.logs import JsonFormatter, PlainFormatter, configure, redact
from service.settings import Settings


def record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("service.jobs", logging.WARNING, "f", 1, message, values, None)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer [redacted]"),
        ('{"api_key": "k-123", "n": 1}', '{"api_key": "[redacted]", "n": 1}'),
        ("postgresql://u:pa55@h/db", "postgresql://u:[redacted]@h/db"),
        ("key sk-abcdefgh1234 refused", "key [redacted] refused"),
        ("GET /login?token=abc&next=/", "GET /login?token=[redacted]&next=/"),
        ("AWS_SECRET_ACCESS_KEY=abc/d+e= x", "AWS_SECRET_ACCESS_KEY=[redacted] x"),
        ("{'secret_key': 'abc'}", "{'secret_key': '[redacted]'}"),
        ("secret_key: abc", "secret_key: [redacted]"),
        ("private-key=abc, n: 1", "private-key=[redacted], n: 1"),
        ("with hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345 no", "with [redacted] no"),
        ("hf_transfer is on; the secret.key is old", "hf_transfer is on; the secret.key is old"),
        ("job-02k9c1q7x4ma takes max_tokens 7", "job-02k9c1q7x4ma takes max_tokens 7"),
    ],
)
def test_secrets_are_blotted_out(text: str, left: str) -> None:
    assert redact(text) == left
    assert left in PlainFormatter().format(record("%s", text))


def test_json_lines_name_their_job() -> None:
    line = json.loads(JsonFormatter().format(record("%s: taken over", "job-02k9c1q7x4ma")))
    assert line["job"] == "job-02k9c1q7x4ma"
    assert (line["level"], line["logger"]) == ("warning", "service.jobs")
    assert "job" not in json.loads(JsonFormatter().format(record("nothing")))


def test_a_trace_is_one_line_too() -> None:
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    line = JsonFormatter().format(failed)
    assert "\n" not in line
    assert "hunter2" not in line
    assert "ValueError" in json.loads(line)["trace"]


def test_the_setting_decides_the_form(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    configure(settings.model_copy(update={"log_format": "json"}))
    logging.getLogger("service").warning("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"
    configure(settings)
    logging.getLogger("service").warning("hello")
    assert "WARNING service: hello" in capsys.readouterr().err
