"""What processes log: plain lines, or JSON with the ids of jobs; secrets blotted out in both."""

import json
import logging
import re
from datetime import UTC, datetime

from service import tracing
from service.settings import Settings

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
JOB = re.compile(r"\bjob-[0-9a-z]{12}\b")
BLOT = "[redacted]"
SECRETS = (
    (re.compile(r"(?i)(bearer\s+)[^\s\"',;]+"), rf"\1{BLOT}"),
    (
        re.compile(
            r"(?i)((?:(?:api|access|secret|private)[_-]?key|password|secret|token)"
            r"[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+"
        ),
        rf"\1{BLOT}",
    ),
    (re.compile(r"(://[^/\s:@]*:)[^@\s/]+(@)"), rf"\1{BLOT}\2"),
    (re.compile(r"\b(?:sk-|retort_)[A-Za-z0-9_-]{8,}"), BLOT),
    (re.compile(r"\bhf_[A-Za-z0-9]{20,}"), BLOT),
)
"""Keys in headers, in fields, in URLs, and by their looks."""
SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.access")


def redact(text: str) -> str:
    """The text without what looks like a secret."""
    for pattern, blotted in SECRETS:
        text = pattern.sub(blotted, text)
    return text


class PlainFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__(PLAIN)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the trace under it."""
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """A JSON object a line: time, level, logger, message; and where there are: job, trace_id, and
    trace, which is an error's."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        message = redact(record.getMessage())
        found: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        job = JOB.search(message)
        if job is not None:
            found["job"] = job[0]
        trace = tracing.current()
        if trace is not None:
            found["trace_id"] = trace.trace_id
        if record.exc_info:
            found["trace"] = redact(self.formatException(record.exc_info))
        return json.dumps(found, ensure_ascii=False)


def configure(settings: Settings) -> None:
    """Log to standard error in the form that the settings ask for. Loggers that a server has set
    up for itself keep their handlers and get the form."""
    formatter = JsonFormatter() if settings.log_format == "json" else PlainFormatter()
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
        root.setLevel(logging.INFO)
    for logger in (root, *map(logging.getLogger, SERVERS)):
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setFormatter(formatter)
