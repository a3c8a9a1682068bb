import json
from pathlib import Path

import pytest

from service.cli.recipes import read_recipe
from service.site import Site
from tests.service.cli.conftest import Cli
from tests.service.given import add_teacher

RECIPE = str(Path(__file__).resolve().parents[3] / "examples/recipes/nightly.yaml")


@pytest.mark.slow
def test_the_example_is_scheduled_run_paused_and_deleted(site: Site, api: str, cli: Cli) -> None:
    add_teacher(site, "demo-teacher")
    words = ("--cron", "30 2 * * *", "--time-zone", "Europe/Berlin", "--missed", "one")
    made = cli("schedules", "create", "nightly", RECIPE, *words, "--url", api, "--json")
    assert made.code == 0, made
    schedule = json.loads(made.out)
    assert schedule["spec"]["build"]["seeds"].startswith("file-")
    assert (schedule["missed"], len(schedule["coming"])) == ("one", 5)

    run = json.loads(cli("schedules", "run", "nightly", "--url", api, "--json").out)
    assert run["job_id"].startswith("job-")
    again = cli("schedules", "run", "nightly", "--url", api)
    assert (again.code, run["job_id"] in again.err) == (2, True)
    shown = cli("schedules", "show", "nightly", "--url", api).out
    assert run["job_id"] in shown
    assert "paused" in cli("schedules", "pause", "nightly", "--url", api).out
    assert "paused" in cli("schedules", "list", "--url", api).out
    assert "paused" not in cli("schedules", "resume", "nightly", "--url", api).out
    assert cli("schedules", "delete", "nightly", "--url", api).code == 0
    assert "no schedules" in cli("schedules", "list", "--url", api).out


def test_a_cron_that_is_none_is_refused_with_its_place(site: Site, api: str, cli: Cli) -> None:
    add_teacher(site, "demo-teacher")
    said = cli("schedules", "create", "x", RECIPE, "--cron", "sometimes", "--url", api)
    assert said.code == 2
    assert "cron: takes five fields" in said.err


@pytest.mark.parametrize("path", sorted(Path(RECIPE).parent.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_recipe_parses(path: Path) -> None:
    assert read_recipe(path, []).spec["kind"]
