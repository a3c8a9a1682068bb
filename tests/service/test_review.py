"""Verdicts of a person make a new version; versions are compared."""

from typing import Any

import httpx

from prompts.dataset import read_manifest, read_rejected
from service.review import Review, difference, review
from service.site import Site
from service.tables import Artifact
from tests.service.test_again import finished

VERDICTS = [
    {"id": "r0", "accept": False, "note": "too short"},
    {"id": "r1", "accept": True},
    {"id": "r3", "accept": True},
]


def dataset_rows(site: Site, reference: str) -> tuple[Any, dict[str, Any]]:
    with site.sessions.reading() as session:
        path = site.store.path(site.store.resolve(session, reference, "dataset"))
    return read_manifest(path), {row.id: row for row in read_rejected(path)}


def made_with_recipe(site: Site, seeds: str) -> str:
    """A dataset of four rows whose recipe is known; its id."""
    finished(site, seeds)
    with site.sessions.reading() as session:
        found = site.store.resolve(session, "dataset", "dataset")
    # What a build writes beside its rows.
    recipe = f"build: {{kind: cot, teacher: t, seeds: {seeds}}}\n"
    (site.store.path(found) / "recipe.yaml").write_text(recipe)
    return found.id


def test_verdicts_move_rows_and_keep_their_reason(site: Site, seeds: str) -> None:
    old = made_with_recipe(site, seeds)
    made = review(site, "dataset", Review.model_validate({"verdicts": VERDICTS}))
    assert (made.version, made.inputs, made.summary["reviewed"]) == (2, [old], 3)
    manifest, rejected = dataset_rows(site, made.id)
    assert (manifest.counts.accepted, manifest.counts.rejected) == (2, 2)
    assert (rejected["r0"].reason, rejected["r0"].detail) == ("by_hand", "too short")
    assert rejected["r0"].raw == ("The answer is 0.",)
    assert rejected.keys() == {"r0", "r2"}
    first, _ = dataset_rows(site, old)
    assert first.counts.accepted == 2  # The version before stands.


def test_versions_are_compared(site: Site, seeds: str) -> None:
    old = made_with_recipe(site, seeds)
    new = review(site, old, Review.model_validate({"verdicts": VERDICTS})).id
    found = difference(site, old, new)
    assert (found.same, found.added, found.removed, found.changed) == (1, 1, 1, 0)
    assert (found.added_ids, found.removed_ids, found.changed_ids) == (("r1",), ("r0",), ())


async def test_reviews_and_differences_over_rest(
    site: Site, api: httpx.AsyncClient, seeds: str
) -> None:
    old = made_with_recipe(site, seeds)
    made = await api.post(f"/api/v1/datasets/{old}/review", json={"verdicts": VERDICTS})
    assert (made.status_code, made.json()["version"]) == (201, 2)
    told = (await api.get("/api/v1/datasets/dataset@2/diff", params={"base": old})).json()
    assert told["removed"] == 1
    for verdicts, words in (
        ([{"id": "nobody", "accept": True}], "there is no row nobody"),
        ([VERDICTS[0], VERDICTS[0]], "a row comes twice"),
    ):
        answer = await api.post(f"/api/v1/datasets/{old}/review", json={"verdicts": verdicts})
        assert (answer.status_code, words in answer.json()["detail"]) == (422, True)
    with site.sessions.reading() as session:
        assert session.query(Artifact).filter_by(kind="dataset").count() == 2
