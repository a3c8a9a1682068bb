"""What a chain is measured on, and the teacher that it is compared with."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from prompts.dataset import assemble, write_chunk
from tests.trainer.compress.chains import Events, inputs, make_spec
from tests.trainer.compress.world import write_dataset
from tests.trainer.conftest import make_model, make_records, make_tokenizer, save_model
from trainer.assess import assess
from trainer.compress.chain import run
from trainer.compress.plan import make_plan
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.measurement import Distance
from trainer.spec import DatasetEval

pytestmark = pytest.mark.slow

__all__ = ["inputs"]
STAGE = {"kind": "magnitude"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("t") / "teacher", make_model(1)))


def test_every_model_has_its_distance_from_the_teacher(
    inputs: dict[str, str], teacher: str, tmp_path: Path
) -> None:
    """That of `retort evaluate`, of both sides of each stage."""
    spec = make_spec(inputs, STAGE, {"kind": "depth"}, teacher=teacher)
    first, second = run(spec, tmp_path, silent)
    assert second.before == first.after
    seen = []
    for facts in (first.before, first.after, second.after):
        asked = DatasetEval(
            dataset=inputs["dataset"], split="validation", teacher=teacher, threads=1, samples=0
        )
        alone = assess(facts.path, asked, silent)
        found = facts.from_teacher
        assert found is not None
        assert found.kl is not None
        assert alone.kl is not None
        assert found.kl.value == pytest.approx(alone.kl.value, rel=1e-4)
        assert found.kl.low == pytest.approx(alone.kl.low, rel=1e-2)
        assert found.top1_agreement == alone.top1_agreement
        seen.append(found.kl.value)
    assert len(set(seen)) == 3
    (none,) = run(make_spec(inputs, STAGE), tmp_path / "none", silent)
    assert none.after.from_teacher is None


def test_another_teacher_measures_anew_and_a_moved_one_does_not(
    inputs: dict[str, str], teacher: str, tmp_path: Path
) -> None:
    run(make_spec(inputs, STAGE, teacher=teacher), tmp_path / "out", silent)
    moved = str(shutil.copytree(teacher, tmp_path / "moved"))
    run(make_spec(inputs, STAGE, teacher=moved), tmp_path / "out", events := Events())
    assert events.worked_on() == []
    other = str(save_model(tmp_path / "other", make_model(2)))
    run(make_spec(inputs, STAGE, teacher=other), tmp_path / "out", events := Events())
    assert events.worked_on() == ["magnitude"]


def padded(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """With eleven rows in its head that stand for no token, and are likely."""
    size = model.config.vocab_size
    model.resize_token_embeddings(size + 11, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[size:] = 0.5
    return model


def test_a_teacher_with_a_padded_head_is_compared_over_the_tokens_of_both(
    inputs: dict[str, str], teacher: str, tmp_path: Path
) -> None:
    wide = str(save_model(tmp_path / "wide", padded(make_model(1))))
    found = []
    for place, name in enumerate((teacher, wide)):
        (report,) = run(make_spec(inputs, STAGE, teacher=name), tmp_path / str(place), silent)
        found.append(report.after.from_teacher)
    assert found[0] == found[1] != None  # noqa: E711


def test_teachers_that_can_not_be_compared_are_refused_before_anything_is_made(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["novel"])
    other = save_model(tmp_path / "other", make_model(vocab_size=64), tokenizer)
    small = save_model(tmp_path / "small", make_model(vocab_size=40))
    broken = make_model(1)
    broken.model.norm.weight.data[:] = math.nan
    odd = save_model(tmp_path / "odd", broken)
    for place, told in (
        (tmp_path / "nowhere", "is not a model directory"),
        (other, "different vocabularies: 1 tokens differ .* name a teacher of the model's family"),
        (small, "head has fewer rows than the tokenizer has tokens"),
        (odd, "weights that are not finite"),
    ):
        events = Events()
        with pytest.raises(BadInput, match=f"^teacher: .*{told}"):
            run(make_spec(inputs, STAGE, teacher=str(place)), tmp_path / "out", events)
        assert events.worked_on() == []
    assert not (tmp_path / "out").exists()


def test_a_made_model_whose_outputs_are_no_numbers_has_no_distance(
    inputs: dict[str, str], teacher: str, tmp_path: Path
) -> None:
    model = load_model(inputs["model"])
    model.get_output_embeddings().weight.data[7] = float("nan")
    made = save_model(tmp_path / "made", model)
    plan = make_plan(make_spec(inputs, STAGE, teacher=teacher), silent, None)
    facts, _, answers = plan.measuring.of_made(Path(inputs["model"]), made)
    assert facts.from_teacher == Distance(kl=None, top1_agreement=None)
    assert facts.row_answers is not None
    assert answers == ()


def test_rows_beyond_the_teacher_are_left_out(inputs: dict[str, str], tmp_path: Path) -> None:
    short = save_model(tmp_path / "short", make_model(1, max_position_embeddings=20))
    (all_rows,) = run(make_spec(inputs, STAGE), tmp_path / "all", silent)
    (fewer,) = run(make_spec(inputs, STAGE, teacher=str(short)), tmp_path / "few", silent)
    assert 0 < fewer.kl_tokens < all_rows.kl_tokens
    tiny = save_model(tmp_path / "tiny", make_model(1, max_position_embeddings=9))
    with pytest.raises(BadInput, match=r"too few rows to measure on: 0 complete validation rows"):
        run(make_spec(inputs, STAGE, teacher=str(tiny)), tmp_path / "none", silent)


@pytest.mark.parametrize(("held", "told"), [(0, 0), (1, 1)])
def test_one_held_out_row_says_nothing_so_train_rows_are_measured_on(
    held: int, told: int, inputs: dict[str, str], tmp_path: Path
) -> None:
    dataset = str(write_dataset(tmp_path / "data", validation=held))
    spec = make_spec({**inputs, "dataset": dataset}, {"kind": "depth"})
    (report,) = run(spec, tmp_path / "out", events := Events())
    warnings = [fields["detail"] for event, fields in events if event == "warning"]
    assert warnings == ["1 complete validation row: train rows are measured on"] * told
    assert report.kl_split == "train"
    found = report.from_source
    assert found is not None
    assert found.kl is not None
    assert (found.kl.rows, found.kl.low < found.kl.value) == (40, True)


def test_one_row_in_all_is_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    dataset = str(write_dataset(tmp_path / "data", train=1, validation=1))
    with pytest.raises(BadInput, match=r"too few rows .*: 1 complete validation row; 1 complete t"):
        run(make_spec({**inputs, "dataset": dataset}, STAGE), tmp_path / "out", silent)


def test_rows_that_no_model_of_this_length_holds_are_named_as_such(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """Held-out ones alone are done without, as where there are none."""
    long = [
        row.model_copy(update={"split": "validation", "prompt": row.prompt * 40})
        for row in make_records(34)[30:]
    ]
    rows = make_records(30)
    for name, given in (("held", [*rows, *long]), ("all", long)):
        given = [
            row if name == "held" else row.model_copy(update={"split": "train"}) for row in given
        ]
        write_chunk(tmp_path / f"{name}.parquet", given)
        assemble(
            tmp_path / name,
            [tmp_path / f"{name}.parquet"],
            recipe={},
            seeds=len(given),
            deduplicate=False,
        )
    spec = make_spec({**inputs, "dataset": str(tmp_path / "held")}, STAGE)
    (report,) = run(spec, tmp_path / "out", events := Events())
    assert report.kl_split == "train"
    told = [fields["detail"] for event, fields in events if fields.get("name") == "validation rows"]
    assert told == ["0 rows; 4 longer than 128 tokens left out"]
    spec = make_spec({**inputs, "dataset": str(tmp_path / "all")}, STAGE)
    with pytest.raises(BadInput, match=r"all has no train rows .*Of 4 rows, .*longer than 128 tok"):
        run(spec, tmp_path / "none", silent)
