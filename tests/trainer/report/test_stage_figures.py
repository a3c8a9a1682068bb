"""What a report tells of stages over the dataset's rows."""

import re
from pathlib import Path

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


def with_figures(sixth: dict[str, object], **serving: float) -> Chain:
    """The made-up chain, whose sixth model, of a stage, has these facts on both sides and lacks
    evaluation questions."""
    rows = list(made_up_chain().models)
    stage = rows[5].stage
    assert stage is not None
    fields = stage.model_dump()
    sides = {side: {**fields[side], "measurement": None, **sixth} for side in ("before", "after")}
    served = {**fields["serving"], **serving}
    told = type(stage).model_validate({**fields, **sides, "serving": served})
    rows[5] = rows[5].model_copy(update={"stage": told})
    return made_up_chain(models=tuple(rows))


FIGURE = {"value": 0.25, "low": 0.125, "high": 0.5, "rows": 16}
ANSWERS = {
    "rows": 16, "exact_match": FIGURE, "rouge_l": {**FIGURE, "value": 0.375}, "accuracy": FIGURE,
    "verifier": "numeric", "uncompared": 2, "cut": 3, "max_new_tokens": 96, "tokens_per_s": 700.0,
    "prefill_tokens_per_s": 5000.0, "decode_tokens_per_s": 800.0, "peak_memory_bytes": 123_000_000,
}  # fmt: skip


def below(folder: Path, name: str) -> Path:
    """A folder within one."""
    made = folder / name
    made.mkdir()
    return made


def rows_of(found: Page, name: str) -> dict[str, dict[str, str]]:
    table = found.tables[name]
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}


def test_answers_to_the_datasets_rows_have_a_table_where_there_are_any(tmp_path):
    found = report(with_figures({"row_answers": ANSWERS}), below(tmp_path, "some"))
    shown = rows_of(page(found), "table-row-answers")
    assert shown["svd"] == {
        "stage": "svd",
        "answer is the row's, before": "25.0% 12.5–50.0",
        "answer is the row's": "25.0% 12.5–50.0",
        "ROUGE-L before": "0.375 0.125 to 0.5",
        "ROUGE-L": "0.375 0.125 to 0.5",
        "verifier takes it, before": "25.0% 12.5–50.0 2",
        "verifier takes it": "25.0% 12.5–50.0 2",
        "rows": "16 validation rows, 3 answers cut at 96 tokens",
    }
    assert shown["wanda"]["ROUGE-L"].startswith("—")
    source = (found / "report.html").read_text()
    assert "2 answers broke the verifier and count as wrong" in source
    assert "report has no answers to the dataset&#39;s rows" in source
    assert "### What each stage's answers lost" in (found / "report.md").read_text()
    card = (found / "models" / "06-svd.md").read_text()
    assert "| verifier takes it | 25.0% (12.5–50.0) [" in card
    assert "| ROUGE-L | 0.375 (0.125 to 0.5) |" in card
    unjudged = {**ANSWERS, "accuracy": None, "verifier": None, "why": "no row has an answer"}
    lacking = report(with_figures({"row_answers": unjudged}), below(tmp_path, "lacking"))
    assert "<li>no row has an answer</li>" in (lacking / "report.html").read_text()
    none = report(made_up_chain(), below(tmp_path, "none"))
    assert "table-row-answers" not in page(none).tables
    assert "ROUGE-L" not in (none / "models" / "06-svd.md").read_text()


def test_distances_from_a_teacher_have_a_table_where_one_was_named(tmp_path):
    distance = {"kl": FIGURE, "top1_agreement": {**FIGURE, "value": 0.3}}
    found = report(with_figures({"from_teacher": distance}), below(tmp_path, "some"))
    shown = rows_of(page(found), "table-teacher")
    assert list(shown["svd"].values()) == [
        "svd", "0.25 0.125 to 0.5", "0.25 0.125 to 0.5", "30.0% 12.5–50.0", "30.0% 12.5–50.0"
    ]  # fmt: skip
    assert "no teacher was named" in (found / "report.html").read_text()  # of the other stages
    assert "### How far each stage" in (found / "report.md").read_text()
    card = (found / "models" / "06-svd.md").read_text()
    assert "| KL from teacher | 0.25 (0.125 to 0.5) |" in card
    none = report(made_up_chain(), below(tmp_path, "none"))
    assert "table-teacher" not in page(none).tables
    assert "from teacher" not in (none / "models" / "06-svd.md").read_text()


def test_speeds_and_memory_of_every_model_stand_together(tmp_path):
    """In both engines; without evaluation questions, those of the answers to rows."""
    chain = with_figures(
        {"row_answers": ANSWERS}, vllm_prefill_tokens_per_s=9000.0, vllm_decode_tokens_per_s=1400.0
    )
    found = report(chain, tmp_path)
    shown = rows_of(page(found), "table-costs")
    assert list(shown["svd"].values()) == ["svd", "5,000", "800", "123 MB", "9,000", "1,400"]
    assert shown["student"]["decode tokens/s"] == "1,003"
    assert shown["student"]["peak memory"] == "484 MB"
    assert shown["student"]["decode tokens/s, vLLM"].startswith("—")
    assert rows_of(page(found), "table-models")["svd"]["tokens/s"] == "700"
    assert "### Speed and memory" in (found / "report.md").read_text()
    assert "| decode tokens/s, vLLM | 1,400 |" in (found / "models" / "06-svd.md").read_text()
