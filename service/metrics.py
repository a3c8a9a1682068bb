"""/metrics: what SQL knows, in Prometheus' form. Read from SQL at a scrape, once in ten seconds at
most, by aggregates over jobs, chunks and teachers: never by a look at a row of data."""

import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Float, cast, extract, func, literal, select
from sqlalchemy.orm import Session

from service import load
from service.site import Site
from service.tables import Chunk, Job, State, Teacher, now, utc

LASTS_S = 10.0
ON_DEVICE = ("train", "compress", "serve", "report")
ROWS = ("accepted", "rejected", "not_needed")
TOKENS = ("prompt", "completion")
ANSWERED = ("completed", "failed")


class SiteCollector(Collector):
    """Collects from one installation's database."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._found: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """The figures, at most ten seconds old. Raises SQLAlchemy's errors."""
        with self._lock:
            if time.monotonic() - self._read_at > LASTS_S:
                with self._site.sessions.reading() as session:
                    found = (_jobs, _chunks, _batches, _teachers)
                    self._found = [metric for read in found for metric in read(session)]
                self._read_at = time.monotonic()
            yield from self._found


def registry_of(site: Site) -> CollectorRegistry:
    """A registry with this installation's figures."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SiteCollector(site))
    return registry


def _jobs(session: Session) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("retort_jobs", "Jobs by kind and state.", labels=["kind", "state"])
    counted = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
    for kind, state, count in session.execute(counted):
        jobs.add_metric([kind, state], count)
    yield jobs
    age = GaugeMetricFamily(
        "retort_queue_age_seconds", "Age of the oldest queued job of a kind.", labels=["kind"]
    )
    oldest = select(Job.kind, func.min(Job.created_at)).where(Job.state == State.QUEUED)
    for kind, created_at in session.execute(oldest.group_by(Job.kind)):
        age.add_metric([kind], (now() - utc(created_at)).total_seconds())
    yield age
    device = CounterMetricFamily(
        "retort_device_seconds",
        "Seconds of jobs that take a device, from first start to end or now, pauses left out.",
        labels=["kind"],
    )
    held = select(Job.kind, func.sum(_seconds(session))).where(
        Job.kind.in_(ON_DEVICE), Job.started_at.is_not(None)
    )
    for kind, total in session.execute(held.group_by(Job.kind)):
        device.add_metric([kind], float(total or 0))
    yield device


def _seconds(session: Session) -> ColumnElement[float]:
    """Of one job. What waits for its device again after a worker's loss counts on: a counter must
    not go back."""
    present = literal(now(), Job.finished_at.type)
    # A job that ended in a pause did nothing after the pause began.
    until = func.coalesce(Job.paused_at, Job.finished_at, present)
    if session.get_bind().dialect.name == "sqlite":
        lasted = (func.julianday(until) - func.julianday(Job.started_at)) * 86400.0
    else:
        lasted = cast(extract("epoch", until - Job.started_at), Float)
    return lasted - Job.paused_s


def _chunks(session: Session) -> Iterator[Metric]:
    sums = [
        func.coalesce(func.sum(column), 0)
        for column in (
            *(Chunk.accepted, Chunk.rejected, Chunk.not_needed),
            *(Chunk.prompt_tokens, Chunk.completion_tokens),
            *(Chunk.requests, Chunk.teacher_seconds),
        )
    ]
    found = [float(total) for total in session.execute(select(*sums)).one()]
    rows = CounterMetricFamily("retort_rows", "Rows of builds, by their end.", labels=["end"])
    for end, total in zip(ROWS, found[:3], strict=True):
        rows.add_metric([end], total)
    tokens = CounterMetricFamily("retort_tokens", "Tokens of builds.", labels=["kind"])
    for kind, total in zip(TOKENS, found[3:5], strict=True):
        tokens.add_metric([kind], total)
    requests = CounterMetricFamily("retort_teacher_requests", "Requests that builds paid for.")
    requests.add_metric([], found[5])
    seconds = CounterMetricFamily("retort_teacher_seconds", "Seconds of those requests, added up.")
    seconds.add_metric([], found[6])
    yield from (rows, tokens, requests, seconds)


def _batches(session: Session) -> Iterator[Metric]:
    """As their last progress told. The sums are of floats: tokens outgrow 32 bits."""
    told = {name: Job.progress[name].as_float() for name in (*ANSWERED, "tokens")}
    sums = [func.coalesce(func.sum(one), 0.0) for one in told.values()]
    query = select(*sums).where(Job.kind == "batch")
    found = dict(zip(told, map(float, session.execute(query).one()), strict=True))
    tokens = CounterMetricFamily(
        "retort_batch_tokens", "Tokens of batches, of prompts and completions together."
    )
    tokens.add_metric([], found["tokens"])
    requests = CounterMetricFamily(
        "retort_batch_requests", "Requests of batches, by their end.", labels=["end"]
    )
    for end in ANSWERED:
        requests.add_metric([end], found[end])
    yield from (tokens, requests)


def _teachers(session: Session) -> Iterator[Metric]:
    well = GaugeMetricFamily(
        "retort_teacher_up", "Whether a teacher's last probe found it well.", labels=["teacher"]
    )
    latency = GaugeMetricFamily(
        "retort_teacher_latency_seconds", "Of the last probe's one token.", labels=["teacher"]
    )
    for name, probe in session.execute(select(Teacher.name, Teacher.probe)):
        well.add_metric([name], float(bool(probe.get("ok"))))
        if probe.get("latency_s") is not None:
            latency.add_metric([name], probe["latency_s"])
    yield from (well, latency)
    yield from _loads(session)


def _loads(session: Session) -> Iterator[Metric]:
    flying, pace, whole = (
        GaugeMetricFamily(f"retort_teacher_{name}", words, labels=["teacher"])
        for name, words in (
            ("in_flight", "Requests under way, as builds last told or as was granted."),
            ("tokens_per_second", "Completion tokens of the builds that ask it now."),
            ("request_seconds", "Mean time of a whole request, of the last week's builds."),
        )
    )
    for name, seen in load.loads(session).items():
        flying.add_metric([name], seen.in_flight)
        pace.add_metric([name], seen.tokens_per_s)
        if seen.latency_s is not None:
            whole.add_metric([name], seen.latency_s)
    yield from (flying, pace, whole)
