"""Adapters, the best weights, early stop, reporting, preflight, and on-policy runs that resume."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from prompts.dataset import import_dataset
from prompts.record import Record
from tests.trainer.conftest import make_records
from tests.trainer.methods.made import made, spec_of
from tests.trainer.runs import Heard, Killed, dying_after, same, weights
from trainer.arguments import PACKAGES
from trainer.errors import BadInput
from trainer.estimate import memory
from trainer.events import silent
from trainer.loading import load_model, load_tokenizer
from trainer.preflight import dry_run, measured
from trainer.preparation import Prepared, prepare
from trainer.spec import TrainSpec
from trainer.training import train_on

pytestmark = pytest.mark.slow

FEW = {"epochs": 1, "checkpoint_steps": 2}


def run(
    spec: TrainSpec, out: Path, emit: Any = silent, held: list[Record] | None = None
) -> dict[str, torch.Tensor]:
    """Weights after 4 steps of 4 rows."""
    given = make_records(4) if held is None else held
    return weights(train_on(spec, make_records(16), given, out, emit))


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("gkd", {"student_share": 0.5, "max_new_tokens": 6}),
        ("minillm", {"max_new_tokens": 6}),
    ],
)
def test_an_on_policy_run_goes_on_bit_for_bit(
    tmp_path: Path, method: str, fields: dict[str, Any]
) -> None:
    """Coin and draws are functions of seed and step: nothing of them can be lost with a process."""
    spec = spec_of(tmp_path, method, optimization=FEW, **fields)
    whole = run(spec, tmp_path / "whole")
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(1))
    heard = Heard()
    assert same(whole, run(spec, tmp_path / "cut", heard))
    assert any("resumed from checkpoint-2" in fields["detail"] for fields in heard.of("phase"))
    other = spec.model_copy(
        update={"optimization": spec.optimization.model_copy(update={"seed": 1})}
    )
    assert not same(whole, run(other, tmp_path / "other"))


def test_packed_rows_train_the_same_student(tmp_path: Path) -> None:
    plain = run(spec_of(tmp_path, "sequence_level", optimization=FEW), tmp_path / "a")
    packing = {**FEW, "packing": True}
    packed = run(spec_of(tmp_path, "sequence_level", optimization=packing), tmp_path / "b")
    assert not same(plain, packed)  # other sums, in another order
    assert max(float((plain[n] - packed[n]).abs().max()) for n in plain) < 1e-3


LORA: dict[str, dict[str, Any]] = {
    "rank": {"rank": 2},
    "alpha": {"alpha": 4.0},
    "dropout": {"dropout": 0.5},
    "layers": {"layers": ("all",)},
}


@pytest.mark.parametrize("change", LORA.values(), ids=LORA.keys())
def test_lora_trains_its_layers_and_leaves_a_plain_model(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    base = weights(Path(spec_of(tmp_path, "sequence_level").student))
    plain = run(spec_of(tmp_path, "sequence_level", optimization=FEW, lora={}), tmp_path / "a")
    assert plain.keys() == base.keys()
    moved = {name for name in base if not torch.equal(base[name], plain[name])}
    assert moved == {name for name in base if "self_attn" in name}
    assert load_model(tmp_path / "a/model").generation_config is not None
    changed = spec_of(tmp_path, "sequence_level", optimization=FEW, lora=change)
    assert not same(plain, run(changed, tmp_path / "b"))


def test_a_merged_student_answers_as_the_adapted_one(tmp_path: Path) -> None:
    """The validation loss of the last step, with adapters, is the saved model's own."""
    spec = spec_of(tmp_path, "sequence_level", optimization=FEW, lora={})
    heard = Heard()
    run(spec, tmp_path / "a", heard)
    again = spec.model_copy(
        update={
            "student": str(tmp_path / "a/model"),
            "lora": None,
            "optimization": spec.optimization.model_copy(
                update={"learning_rate": 1e-12, "max_steps": 1}
            ),
        }
    )
    told = Heard()
    run(again, tmp_path / "b", told)
    assert told.of("validation")[-1]["loss"] == pytest.approx(heard.of("validation")[-1]["loss"])


def test_lora_layers_that_are_nowhere_are_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "sequence_level", lora={"layers": ("c_attn",)})
    with pytest.raises(BadInput, match="the student has no c_attn"):
        run(spec, tmp_path / "a")


def test_the_best_weights_are_kept_and_a_run_without_progress_ends(tmp_path: Path) -> None:
    """The rate explodes after warm-up: the first measurement is the lowest."""
    wild = {"epochs": 5, "learning_rate": 3.0, "warmup_ratio": 0.0, "eval_steps": 1}
    heard = Heard()
    spec = spec_of(tmp_path, "sequence_level", optimization={**wild, "keep": "best", "patience": 2})
    run(spec, tmp_path / "best", heard)
    card = json.loads((tmp_path / "best/model/retort.json").read_text())
    losses = dict(card["validation"])
    assert losses[card["best_step"]] == min(losses.values())
    assert card["best_step"] < card["steps"] == card["best_step"] + 2 < 20
    assert any(fields["name"] == "early stop" for fields in heard.of("phase"))
    last = spec_of(tmp_path, "sequence_level", optimization={**wild, "patience": 2})
    assert not same(run(last, tmp_path / "last"), weights(tmp_path / "best/model"))
    told = Heard()
    calm = {"learning_rate": 1e-12, "max_steps": 1}
    kept = spec_of(tmp_path, "sequence_level", optimization=calm)
    run(kept.model_copy(update={"student": str(tmp_path / "best/model")}), tmp_path / "c", told)
    assert told.of("validation")[-1]["loss"] == pytest.approx(min(losses.values()), rel=1e-4)


@pytest.mark.parametrize("harm", [None, "damaged", "gone"])
def test_best_weights_outlive_a_kill_and_are_checked(tmp_path: Path, harm: str | None) -> None:
    """Killed after a checkpoint whose best is an earlier step's: those weights are still there.
    Where they aren't whole, the run says so and ends with the last ones."""
    wild = {"epochs": 1, "learning_rate": 30.0, "warmup_ratio": 0.0, "eval_steps": 1}
    spec = spec_of(
        tmp_path, "sequence_level", optimization={**wild, "keep": "best", "checkpoint_steps": 2}
    )
    whole = run(spec, tmp_path / "whole")
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(1))
    (best,) = (tmp_path / "cut/checkpoints").glob("best-*")
    if harm == "damaged":
        (best / "weights.pt").write_bytes(b"half")
    elif harm == "gone":
        shutil.rmtree(best)
    heard = Heard()
    ended = run(spec, tmp_path / "cut", heard)
    assert best.name == "best-1"
    assert same(ended, whole) is (harm is None)
    told = [f["detail"] for f in heard.of("warning") if "the last ones are kept" in f["detail"]]
    assert len(told) == (harm is not None)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_that_had_stopped_early_does_not_go_on(tmp_path: Path, keep: str) -> None:
    """Killed between the checkpoint of its last step and the finished student."""
    wild = {"epochs": 5, "learning_rate": 3.0, "warmup_ratio": 0.0, "eval_steps": 1}
    options = {**wild, "patience": 1, "keep": keep, "checkpoint_steps": 1}
    spec = spec_of(tmp_path, "sequence_level", optimization=options)
    whole = run(spec, tmp_path / "whole")
    card = json.loads((tmp_path / "whole/model/retort.json").read_text())
    assert card["steps"] < 20
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(card["steps"]))
    assert same(whole, run(spec, tmp_path / "cut"))
    again = json.loads((tmp_path / "cut/model/retort.json").read_text())
    named = ("steps", "best_step", "losses", "validation", "tokens_learnt")
    assert [again[name] for name in named] == [card[name] for name in named]


@pytest.mark.parametrize("options", [{"keep": "best"}, {"patience": 1}])
def test_choosing_by_validation_needs_such_rows(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="needs a validation split"):
        run(spec_of(tmp_path, "sequence_level", optimization=options), tmp_path / "a", held=[])


def test_a_dry_run_tells_plan_memory_and_time_and_leaves_nothing(tmp_path: Path) -> None:
    rows = [
        {
            "id": record.id,
            "prompt": [message.model_dump() for message in record.prompt],
            "completion": [message.model_dump() for message in record.completion],
            "reasoning": record.reasoning,
        }
        for record in make_records(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    import_dataset(tmp_path / "rows.jsonl", tmp_path / "dataset", kind="cot")
    spec = spec_of(tmp_path, "kd", dataset=str(tmp_path / "dataset"))
    before = sorted(tmp_path.iterdir())
    told = dry_run(spec, silent)
    assert "--- learnt ---" in told
    for said in ("steps,", "median", "vocabulary 61, head 61", "teacher: 0.1 MB", "s a step by 2"):
        assert said in told
    assert sorted(tmp_path.iterdir()) == before


def estimated(run: Prepared) -> dict[str, float]:
    return memory(run.spec, run.rows, run.plan)


def test_a_machine_with_too_little_memory_is_told_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("the GPU's memory is asked then")
    spec, told = spec_of(tmp_path, "kd"), list[tuple[str, dict[str, Any]]]()

    def emit(kind: str, data: dict[str, Any]) -> None:
        told.append((kind, data))

    prepare(spec, make_records(16), [], emit)
    assert not any("memory" in str(data) for kind, data in told if kind == "warning")
    told.clear()
    free = psutil.virtual_memory()._replace(available=10_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    prepare(spec, make_records(16), [], emit)
    kinds = [(kind, data.get("name")) for kind, data in told]
    (at,) = (i for i, (_, data) in enumerate(told) if "memory may not do" in str(data))
    assert at < kinds.index(("phase", "load"))
    said = told[at][1]["detail"]
    assert "teacher 0.0" in said
    assert "0.0 are free. Lower optimization.batch_size (" in said


def test_the_memory_estimate_follows_what_costs(tmp_path: Path) -> None:
    def estimate(**optimization: Any) -> dict[str, float]:
        spec = spec_of(tmp_path, "sequence_level", optimization=optimization)
        return estimated(made(spec, make_records(16))[0])

    plain = estimate()
    parameters = sum(t.numel() for t in load_model(tmp_path / "student").parameters())
    assert plain["weights"] == 4 * parameters
    assert plain["gradients and AdamW"] == 12 * parameters
    name = "activations, about"
    assert estimate(batch_size=8)[name] > 1.5 * plain[name]
    assert estimate(gradient_checkpointing=True)[name] < plain[name]
    lora = spec_of(tmp_path, "sequence_level", lora={"rank": 1})
    assert estimated(made(lora)[0])["gradients and AdamW"] < plain["gradients and AdamW"] / 4


def test_the_memory_estimate_is_of_the_longest_rows_and_no_more_than_there_are(
    tmp_path: Path,
) -> None:
    name = "activations, about"

    def estimate(seed: int, rows: int, batch_size: int) -> float:
        wanted = {"seed": seed, "batch_size": batch_size}
        spec = spec_of(tmp_path, "sequence_level", optimization=wanted)
        return estimated(made(spec, make_records(rows))[0])[name]

    # Whichever rows a seed puts into the first step.
    assert len({estimate(seed, 16, 2) for seed in range(4)}) == 1
    assert estimate(0, 16, 10_000) == estimate(0, 16, 16)


def test_the_memory_estimate_counts_what_answers_take_while_they_are_drawn(tmp_path: Path) -> None:
    """As much as transformers' own cache of as many answers as long as they may get."""
    spec = spec_of(tmp_path, "gkd", samples=3, max_new_tokens=9)
    run, student = made(spec, make_records(16))
    longest = max(row.prompt_tokens for row in run.rows.rows)
    ids = torch.zeros(12, longest + 9, dtype=torch.long)
    held = student.model(input_ids=ids, use_cache=True).past_key_values.layers
    taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in held)
    assert estimated(run)["answers' cache"] == taken
    off_policy = spec_of(tmp_path, "gkd", student_share=0.0)
    assert "answers' cache" not in estimated(made(off_policy, make_records(16))[0])


def installed(monkeypatch: pytest.MonkeyPatch, *wanted: str) -> None:
    """Of the trackers' packages these seem to be there, whatever there is."""
    import importlib.util

    find = importlib.util.find_spec
    packages = {name for names in PACKAGES.values() for name in names}

    def look(name: str, *rest: Any) -> Any:
        if name in packages:
            return find("json") if name in wanted else None
        return find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", look)


@pytest.mark.parametrize("tracker", sorted(PACKAGES))
def test_reporting_to_what_is_not_installed_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    installed(monkeypatch)
    heard = Heard()
    with pytest.raises(BadInput, match=f"{tracker} is not installed"):
        run(
            spec_of(tmp_path, "sequence_level", optimization={"report_to": (tracker,)}),
            tmp_path / "a",
            heard,
        )
    assert not heard


def test_figures_go_to_what_is_named_for_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake stands for the library's own way to a tracker; every one of ours has such a way."""
    told: list[dict[str, float]] = []

    class Tracker(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any
        ) -> None:
            told.append({"step": state.global_step, **logs})

    assert PACKAGES.keys() <= INTEGRATION_TO_CALLBACK.keys()
    installed(monkeypatch, "wandb")
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Tracker)
    options = {**FEW, "report_to": ("wandb",), "eval_steps": 2}
    run(spec_of(tmp_path, "kd", optimization=options), tmp_path / "a")
    steps = [one for one in told if "grad_norm" in one]
    assert [one["step"] for one in steps] == [1, 2, 3, 4]
    assert all(one["forward_kl"] == pytest.approx(one["loss"], rel=1e-4) for one in steps)
    assert all({"entropy", "learning_rate"} <= one.keys() for one in steps)
    held = [one for one in told if "eval_loss" in one]
    assert [one["step"] for one in held] == [2, 4]
    assert all({"eval_forward_kl", "eval_entropy"} <= one.keys() for one in held)


def test_a_dry_run_reports_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are none of the run's."""
    told: list[str] = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            told.append("begun")

    installed(monkeypatch, "wandb")
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Tracker)
    spec = spec_of(tmp_path, "sequence_level", optimization={"report_to": ("wandb",)})
    measured(prepare(spec, make_records(8), [], silent), silent)
    assert not told


def test_a_dry_run_writes_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be of the whole student, in a place where nobody has looked for room."""
    place = tmp_path / "place"
    kept = contextlib.nullcontext(str(place))
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda: kept)
    spec = spec_of(tmp_path, "sequence_level", optimization={"checkpoint_steps": 1})
    measured(prepare(spec, make_records(8), [], silent), silent)
    assert not list(place.iterdir())


def test_what_a_method_lacks_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    heard = Heard()
    spec = spec_of(tmp_path, "meta_ict").model_copy(update={"student": "/nowhere/at/all"})
    with pytest.raises(BadInput, match="needs in-context rows"):
        run(spec, tmp_path / "a", heard)
    assert not heard


def test_old_recipes_parse_and_train(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "forward_kl", optimization=FEW)
    run(spec, tmp_path / "out")
    assert load_tokenizer(tmp_path / "out/model").chat_template
