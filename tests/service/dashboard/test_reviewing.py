"""Verdicts given on pages, the version made of them, and its comparison with the one before."""

from pathlib import Path

import httpx
import pytest

from prompts.dataset import read_rejected
from prompts.record import Rejected
from service import artifacts, keys, verdicts
from service.keys import NewKey
from service.problems import Problem
from service.review import Verdict
from service.site import Site
from tests.service.dashboard import world
from tests.service.dashboard.asked import Seen, token

HTMX = {"HX-Request": "true"}


@pytest.fixture
def dataset(site: Site, tmp_path: Path) -> str:
    """Eight rows, of which two were not accepted."""
    return world.add_dataset(site, tmp_path, world.answered(8), "stories")


def waiting(site: Site, dataset: str) -> dict[str, tuple[bool, str]]:
    with site.sessions.reading() as session:
        found = verdicts.listing(session, dataset, "", 100)
    return {one.row_id: (one.accept, one.note) for one in found}


async def test_verdicts_wait_until_a_version_is_made_of_them(
    site: Site, browser: httpx.AsyncClient, dataset: str
) -> None:
    place = f"/datasets/{dataset}/verdicts"
    csrf = {"csrf": await token(browser, f"/datasets/{dataset}")}
    for form in (
        {"row": "story-0000", "say": "reject", "note": "too easy"},
        {"row": "story-0003", "say": "accept"},
        {"row": "story-0001", "say": "reject"},
        {"row": "story-0001", "say": "accept"},
        {"row": "story-0002", "say": "reject"},
        {"row": "story-0002", "say": "nothing"},
    ):
        assert (await browser.post(place, data=csrf | form)).status_code == 303
    assert waiting(site, dataset) == {
        "story-0000": (False, "too easy"),
        "story-0001": (True, ""),
        "story-0003": (True, ""),
    }
    listed = Seen((await browser.get(place)).text).text
    assert "too easy" in listed
    made = await browser.post(f"{place}/apply", data=csrf)
    compared = Seen((await browser.get(made.headers["location"])).text).text
    assert "version 2" in compared
    new, path = artifacts.directory(site, "dataset", "stories@2")
    assert (new.summary["accepted"], new.summary["reviewed"]) == (6, 3)
    by_hand = {row.id: row.detail for row in read_rejected(path) if row.reason == "by_hand"}
    assert by_hand == {"story-0000": "too easy"}
    assert waiting(site, dataset) == {}
    assert (await browser.post(f"{place}/apply", data=csrf)).status_code == 422


async def test_a_script_gets_the_row_and_the_count(
    site: Site, browser: httpx.AsyncClient, dataset: str
) -> None:
    csrf = {"csrf": await token(browser, f"/datasets/{dataset}")}
    form = csrf | {"row": "story-0005", "say": "reject"}
    answer = await browser.post(f"/datasets/{dataset}/verdicts", data=form, headers=HTMX)
    seen = Seen(answer.text)
    pressed = [at["value"] for _, at in seen.tags if at.get("aria-pressed") == "true"]
    assert pressed == ["reject"]
    assert "1 verdict" in seen.text
    assert any(at.get("hx-swap-oob") for _, at in seen.tags)
    refused = await browser.post(
        f"/datasets/{dataset}/verdicts", data=csrf | {"row": "none", "say": "accept"}, headers=HTMX
    )
    assert refused.status_code == 404


async def test_what_cannot_be_accepted_is_refused_where_it_is_said(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    rows = world.answered(8)
    rows[3] = rows[3].model_copy(update={"raw": (), "completion": ()})
    dataset = world.add_dataset(site, tmp_path, rows, "stories")
    found, path = artifacts.directory(site, "dataset", dataset)
    with pytest.raises(Problem, match="nothing was answered"):
        verdicts.give(site, found, path, Verdict(id="story-0003", accept=True))
    form = {"csrf": await token(browser, f"/datasets/{dataset}"), "row": "story-0003"}
    place = f"/datasets/{dataset}/verdicts"
    told = await browser.post(place, data=form | {"say": "accept"}, headers=HTMX)
    assert "nothing was answered" in told.text
    assert waiting(site, dataset) == {}
    assert (await browser.post(place, data=form | {"say": "accept"})).status_code == 422
    assert (await browser.post(place, data=form | {"say": "reject"})).status_code == 303


async def test_who_only_reads_gives_no_verdicts(
    site: Site, browser: httpx.AsyncClient, dataset: str
) -> None:
    _, key = keys.create(site, NewKey(name="reader", scopes=("read",)))
    await browser.post("/login", data={"key": key})
    seen = (await browser.get(f"/datasets/{dataset}")).text
    assert "/verdicts" not in seen
    assert (await browser.post(f"/datasets/{dataset}/verdicts")).status_code == 403


async def test_a_comparison_shows_rows_as_they_were_and_are(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    rows = world.answered(8)
    old = world.add_dataset(site, tmp_path / "old", rows[:7], "stories")
    assert "No earlier version" in (await browser.get(f"/datasets/{old}/diff")).text
    changed = world.hostile(rows)[1].model_copy(update={"content_hash": "f" * 64})
    new = world.add_dataset(site, tmp_path / "new", [changed, *rows[2:8]], "stories")
    for show, ids, text in (
        ("removed", {"story-0000"}, "No row of this id."),
        ("changed", {"story-0001"}, world.XSS[1]),
        ("added", set(), "No row was added."),
    ):
        # Without a base it is the version before.
        seen = Seen((await browser.get(f"/datasets/{new}/diff?show={show}")).text).text
        found = {row.id for row in rows if row.id in seen}
        assert (found, text in seen) == (ids, True), show
    back = Seen((await browser.get(f"/datasets/{old}/diff?base={new}")).text).text
    assert "story-0000" in back, "what was removed is added the other way round"
    assert (await browser.get(f"/datasets/{new}/diff?base=none")).status_code == 404


async def test_a_rejected_row_says_which_of_its_texts_an_accept_takes(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    wrong, lost = (row for row in world.answered(8) if isinstance(row, Rejected))
    (own,) = wrong.completion
    wrong = wrong.model_copy(update={"raw": ("a first try", own.content)})
    lost = lost.model_copy(update={"completion": ()})
    dataset = world.add_dataset(site, tmp_path, [wrong, lost], "odd")
    row = Seen((await browser.get(f"/datasets/{dataset}/row?id={wrong.id}")).text).text
    assert row.count(own.content) == 1, "it stands there once"
    before, marked, after = row.partition("Accepting the row takes this answer.")
    assert own.content in before
    assert marked
    assert "a first try" in after
    row = Seen((await browser.get(f"/datasets/{dataset}/row?id={lost.id}")).text).text
    assert "can't be accepted by hand" in row
    assert "Accepting the row" not in row
