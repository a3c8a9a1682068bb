"""What a worker does belongs to the trace of the job's submission."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select

from service import spans, tracing
from service.site import Site
from service.spans import SpanKind
from service.tables import Job


@contextmanager
def of_job(site: Site, job_id: str) -> Iterator[None]:
    """What runs within belongs to the job's trace, where the settings want traces."""
    if not site.settings.tracing:
        yield
        return
    with site.sessions.reading() as session:
        found = session.execute(select(Job.traceparent, Job.kind).where(Job.id == job_id)).first()
    known, kind = found if found is not None else (None, "")
    with (
        tracing.under(tracing.parsed(known)),
        spans.span(f"work on {kind}", SpanKind.CONSUMER, job=job_id),
    ):
        yield
