"""Recipes whose trainings could learn nothing from what they build are refused unpaid."""

from typing import Any

import pytest

from service import preflight
from service.problems import Problem
from service.site import Site
from tests.service.given import add_file, add_teacher, build, spec

LABELLED = "".join(f'{{"input": "i{n}", "output": "o{n}"}}\n' for n in range(40))
KL = {"student": "org/s", "teacher": "org/s"}


def refused(site: Site, **parts: Any) -> dict[str, str]:
    """Faults by location; none where it is taken."""
    try:
        preflight.check(site, spec(kind="recipe", **parts))
    except Problem as problem:
        return {fault.location: fault.message for fault in problem.faults}
    return {}


@pytest.mark.parametrize(
    ("built", "train", "words"),
    [
        ({}, {"method": "stored_kl", "student": "org/s"}, "add build.signal"),
        ({"signal": {"top_k": 5}}, {"method": "stored_kl", "student": "org/s"}, None),
        ({}, {"method": "step_by_step", "student": "org/s"}, None),
        ({}, {"method": "meta_ict"} | KL, "the build's are of kind cot"),
    ],
)
def test_a_method_that_a_cot_build_gives_no_rows_for_is_refused(
    site: Site, seeds: str, built: dict[str, Any], train: dict[str, Any], words: str | None
) -> None:
    add_teacher(site)
    found = refused(site, build=build(seeds, **built), train=train)
    assert set(found) == ({"train.method"} if words else set())
    assert (words or "") in found.get("train.method", "")


def test_a_method_that_an_icl_build_gives_no_rows_for_is_refused(site: Site) -> None:
    add_teacher(site)
    fields = {"kind": "icl", "teacher": "t", "seeds": add_file(site, LABELLED)}
    rationales = {"method": "rationale_then_answer", "student": "org/s"}
    assert "kind icl" in refused(site, build=fields, train=rationales)["train.method"]
    shown = {"method": "multitask_ict"} | KL
    assert refused(site, build=fields, train=shown) == {}
    bare = fields | {"demonstrations": 0, "template": "{{ input }}"}
    assert "is 0" in refused(site, build=bare, train=shown)["train.method"]


def test_a_heal_from_a_signal_that_the_build_does_not_record_is_refused(
    site: Site, seeds: str
) -> None:
    add_teacher(site)
    stages = [{"kind": "svd", "heal": {"method": "stored_kl"}}]
    stages += [{"kind": "qat", "training": {"method": "stored_kl"}}]
    found = refused(
        site, build=build(seeds), compress={"model": "org/s", "stages": stages[:1]}
    ) | refused(site, build=build(seeds), compress={"model": "org/s", "stages": stages[1:]})
    assert set(found) == {
        "compress.stages.0.heal.method",
        "compress.stages.0.training.method",
    }


def test_a_recipe_that_compresses_alone_names_its_dataset(site: Site) -> None:
    compress = {"model": "org/s", "stages": [{"kind": "ptq"}]}
    assert refused(site, compress=compress) == {"compress.dataset": "name a dataset"}
