"""What a report tells of stages over the dataset's rows."""

import re

from tests.trainer.report.made_up import made_up_chain
from tests.trainer.report.test_build import HOSTILE, Page, page, report
from trainer.compress.report import Answer, SideBySide
from trainer.report.chain import Chain


def test_a_stages_figures_over_rows_stand_with_their_intervals(tmp_path):
    """Where the report has them; what an older one lacks is a dash with the reason."""
    figure = {"value": 0.021, "low": 0.019, "high": 0.0235, "rows": 64}
    agreed = {"value": 0.972, "low": 0.96, "high": 0.981, "rows": 64}
    distance = {"kl": figure, "top1_agreement": agreed}
    facts = {"perplexity": {**figure, "value": 3.1}, "from_start": distance}
    rows = list(made_up_chain().models)
    stage = rows[5].stage
    assert stage is not None
    fields = stage.model_dump()
    newer = {side: {**fields[side], **facts} for side in ("before", "after")}
    fresh = type(stage).model_validate({**fields, **newer, "from_source": distance})
    rows[5] = rows[5].model_copy(update={"stage": fresh})
    found = report(made_up_chain(models=tuple(rows)), tmp_path)

    table = page(found).tables["table-losses"]
    shown = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
    assert shown["svd"]["perplexity"] == "3.1 0.019 to 0.0235"
    assert shown["svd"]["KL from source"] == "0.021 0.019 to 0.0235"
    assert shown["svd"]["KL from start"] == "0.021 0.019 to 0.0235"
    assert shown["svd"]["likeliest token is start's"] == "97.2% 96.0–98.1"
    assert shown["wanda"]["KL from source"] == "0.021"
    assert shown["wanda"]["perplexity"].startswith("—")
    source = (found / "report.html").read_text()
    assert "not taken by the version that made this stage" in source
    card = (found / "models" / "06-svd.md").read_text()
    assert "| KL from start | 0.021 (0.019 to 0.0235) |" in card
    assert "| likeliest token is start's | 97.2% (96.0–98.1) |" in card
    assert "| completion tokens of those | 4,200, of validation rows |" in card


def answered(number: int, first: str, made: str, gold: str = "7") -> SideBySide:
    said = [Answer(text=text, right=text.endswith(gold)) for text in (first, made)]
    return SideBySide(id=f"q{number}", prompt=f"Q{number}", gold=gold, first=said[0], made=said[1])


def with_answers(*answers: SideBySide) -> Chain:
    """The made-up chain, whose sixth model is that of a stage with these."""
    rows = list(made_up_chain().models)
    stage = rows[5].stage
    assert stage is not None
    told = stage.model_copy(update={"answers": answers})
    rows[5] = rows[5].model_copy(update={"stage": told})
    return made_up_chain(models=tuple(rows))


def test_a_stages_answers_stand_beside_the_first_models_changed_ones_first(tmp_path):
    long = "so " * 160 + "it is 7"
    chain = with_answers(
        answered(1, "It is 7", "It is 7"), answered(2, long, ""), answered(3, "It is 8", "It is 9")
    )
    found = report(chain, tmp_path)

    source = (found / "models" / "06-svd.html").read_text()
    rows = Page(source).tables[""]
    head = rows.index(["question", "gold", "first model", "this model"])
    assert rows[head + 1 :] == [
        ["Q2", "7", f"{long} right", "— wrong 1"],
        ["Q3", "7", "It is 8 wrong", "It is 9 wrong"],
        ["Q1", "7", "It is 7 right", "It is 7 right"],
    ]
    assert "<li>it ended at once</li>" in source
    assert "What svd said" in source
    assert "first model" not in (found / "models" / "04-wanda.html").read_text()
    written = (found / "report.md").read_text()
    assert "### What svd said\n\n| question | gold | first model | this model |" in written
    assert "| Q3 | 7 | It is 8 (wrong) | It is 9 (wrong) |" in written
    assert "Q3" not in (found / "models" / "06-svd.md").read_text()


def test_answers_stay_words(tmp_path):
    found = report(with_answers(answered(1, HOSTILE, HOSTILE * 2, gold=HOSTILE)), tmp_path)

    source = (found / "models" / "06-svd.html").read_text()
    assert "script" not in Page(source).tags
    assert "&lt;script&gt;" in source
    written = (found / "report.md").read_text()
    assert "<script" not in written
    table = written[written.index("### What svd said") :].split("\n\n")[1].splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {5}
    assert len(table) == 3
