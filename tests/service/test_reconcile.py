from sqlalchemy import update

from service import jobs, reconcile
from service.site import Site
from service.tables import Job, State
from tests.service.fakes import FakeBroker
from tests.service.given import add_teacher, build, spec, state_of

SERVE = spec(kind="serve", model="a/b", name="t2")


def set_state(site: Site, job_id: str, **values: object) -> None:
    with site.sessions.writing.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(values))


def running_build(site: Site, seeds: str) -> str:
    """Its id."""
    add_teacher(site)
    job = jobs.submit(site, spec(kind="build", build=build(seeds)))
    set_state(site, job.id, state=State.RUNNING)
    return job.id


def test_a_lost_doorbell_is_rung_again(site: Site, broker: FakeBroker) -> None:
    broker.away = True
    job = jobs.submit(site, SERVE)
    assert reconcile.tick(site) == 0

    broker.away = False
    assert reconcile.tick(site) == 1
    assert broker.rung == [("serve", job.id)]


def test_doorbells_do_not_pile_up(site: Site, broker: FakeBroker) -> None:
    jobs.submit(site, SERVE)
    for _ in range(5):
        reconcile.tick(site)
    assert len(broker.rung) == 1


def test_running_builds_are_rung_for_and_ended_jobs_are_not(
    site: Site, broker: FakeBroker, seeds: str
) -> None:
    running = running_build(site, seeds)
    serving = jobs.submit(site, SERVE)
    set_state(site, serving.id, state=State.RUNNING)
    ended = jobs.submit(site, SERVE)
    jobs.cancel(site, ended.id)
    broker.rung.clear()

    reconcile.tick(site)

    assert set(broker.rung) == {("build", running)}


def test_a_running_build_is_rung_for_a_varying_number_of_times(
    site: Site, broker: FakeBroker, seeds: str
) -> None:
    """With a fixed one, two workers take ticks and bells in turns, and one never hears a bell."""
    running_build(site, seeds)
    heard = set()
    for _ in range(40):
        broker.rung.clear()
        heard.add(reconcile.tick(site))
    assert heard == {1, 2}


def test_recipes_advance_without_a_doorbell(site: Site, broker: FakeBroker, seeds: str) -> None:
    add_teacher(site)
    broker.away = True
    recipe = jobs.submit(site, spec(kind="recipe", build=build(seeds)))
    reconcile.tick(site)
    with site.sessions.reading() as session:
        assert [child.part for child in jobs.children(session, recipe.id)] == ["build"]


def test_a_job_that_was_told_to_stop_before_its_worker_died_ends(site: Site) -> None:
    job = jobs.submit(site, SERVE)
    set_state(site, job.id, cancel_requested=True)
    reconcile.tick(site)
    assert state_of(site, job.id) == ("cancelled", "cancelled")
