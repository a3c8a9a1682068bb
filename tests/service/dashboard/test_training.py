"""What the page of a training draws and lists."""

from pathlib import Path

import httpx
import pytest

from service.dashboard import training
from service.dashboard.training import Samples, curves
from service.site import Site
from tests.service.dashboard import world
from tests.service.dashboard.asked import Seen


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    told = [("step", {"step": n, "loss": 1.0}) for n in range(1, 5001)]
    told += [("validation", {"step": 7, "loss": 2.0}), ("step", {"step": "?", "loss": None})]
    found = curves(told)
    assert len(found["step"]) < 700
    assert (found["step"][0], found["step"][-1]) == (1, 5000)
    training, validation = found["panels"][0]["series"]
    assert (training["name"], training["points"]) == ("training", False)
    assert (validation["name"], validation["points"]) == ("validation", True)
    assert validation["values"][found["step"].index(7)] == 2.0


def test_each_kind_of_figure_has_its_plot() -> None:
    figures = {"learning_rate": 1e-3, "grad_norm": 2.0, "entropy": 1.5, "tokens_per_s": 9.0}
    terms = {"reverse_kl": 0.4, "cross_entropy": 0.6}
    told = [("step", {"step": n, "loss": 1.0, **figures, **terms}) for n in (1, 2)]
    told += [("validation", {"step": 2, "loss": 1.1, "entropy": float("nan"), **terms})]
    panels = {panel["label"]: panel["series"] for panel in curves(told)["panels"]}
    assert [name.partition(",")[0] for name in panels] == [
        "loss",
        "terms of the loss",
        "entropy",
        "norm of the gradient",
        "learning rate",
    ]
    names = [one["name"] for one in panels["terms of the loss, per token"]]
    assert names[0] == "cross entropy, training"
    assert "reverse kl, validation" in names
    entropy = panels["entropy, nats per token"]
    assert [one["name"] for one in entropy] == ["training"], "what isn't finite can't be drawn"


def test_a_term_that_is_the_loss_is_not_drawn_twice() -> None:
    told = [("step", {"step": n, "loss": 1.0 / n, "cross_entropy": 1.0 / n}) for n in (1, 2)]
    assert len(curves(told)["panels"]) == 1
    told.append(("step", {"step": 3, "loss": 1.0, "cross_entropy": 2.0}))
    assert len(curves(told)["panels"]) == 2


async def test_samples_and_checkpoints_stand_on_the_page(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    train = world.fill(site, tmp_path)["train"]
    seen = Seen((await browser.get(f"/jobs/{train}")).text).text
    assert "after step 200" in seen
    assert f"student after 200 {world.XSS[0]}" in seen
    assert "teacher made-up" in seen
    assert "the dataset's own" in seen
    assert f"gold {world.XSS[0]}" in seen
    assert "lowest until then" in seen
    assert "student after 100" not in seen
    earlier = Seen((await browser.get(f"/jobs/{train}/samples?step=100")).text).text
    assert f"student after 100 {world.XSS[0]}" in earlier
    assert "teacher made-up" in earlier
    for path in (f"/jobs/{train}/samples?step=7", "/jobs/job-build1/samples"):
        assert "No samples" in (await browser.get(path)).text


def test_answers_whose_origin_is_not_known_are_shown_as_they_are(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = world.fill(site, tmp_path)
    found = Samples(ids["train"], 1, [{"id": "story-0000"}, {"id": "gone"}], [1])
    named = training.beside(site, ids["train"], found)
    assert named is not None
    assert [row.get("teacher") for row in named.rows] == ["made-up", None]
    assert training.beside(site, ids["build"], found) is found
    monkeypatch.setattr(training, "MOST_BYTES", 1)
    assert training.beside(site, ids["train"], found) is found
