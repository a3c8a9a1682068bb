"""The tick: take back what the dead held, ring again for what is stranded."""

from service import reconcile
from service.site import Site
from workers.watch import Watch, free_stale_chunks, free_stale_jobs


def tick(site: Site, watch: Watch) -> int:
    """One look at all leases, through the eyes of one long-lived observer; doorbells rung."""
    with site.sessions.writing() as session:
        free_stale_chunks(session, watch)
        free_stale_jobs(session, watch)
    return reconcile.tick(site)
