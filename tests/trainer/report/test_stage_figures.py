"""What a report tells of stages over the dataset's rows."""

from tests.trainer.report.made_up import made_up_chain
from tests.trainer.report.test_build import page, report


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
