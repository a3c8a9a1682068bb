"""What a page says that its figures don't."""

import pytest

from tests.trainer.report.made_up import made_up_chain, models
from trainer.report.caveats import caveats


@pytest.mark.parametrize(
    ("kind", "said"),
    [("wanda", True), ("magnitude", True), ("sparsegpt", True), ("depth", False)],
)
def test_a_mask_is_said_to_save_nothing(kind: str, said: bool) -> None:
    rows = [row for row in models() if row.id == "wanda"]
    stage = rows[0].stage
    assert stage is not None
    other = rows[0].model_copy(update={"stage": stage.model_copy(update={"kind": kind})})
    words = " ".join(caveats(made_up_chain(models=(other,))))
    assert ("stores its zeros" in words) is said


@pytest.mark.parametrize(("split", "said"), [("train", True), ("validation", False)])
def test_figures_over_train_rows_are_said_to_be_that(split: str, said: bool) -> None:
    (row,) = (row for row in models() if row.id == "svd")
    assert row.stage is not None
    other = row.model_copy(update={"stage": row.stage.model_copy(update={"kl_split": split})})
    words = " ".join(caveats(made_up_chain(models=(other,))))
    assert ("are over train rows" in words) is said
