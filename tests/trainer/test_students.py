"""What a student may start from, what is refused, and memory that runs out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.service.cli.test_train import write_dataset
from tests.trainer.conftest import make_model, make_records, make_tokenizer, save_model
from tests.trainer.methods.made import made, spec_of
from tests.trainer.runs import Heard, same, weights
from trainer.compress.chain import run as compress
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model, load_tokenizer
from trainer.recipe import run_recipe
from trainer.spec import CompressSpec, TrainSpec
from trainer.training import train_on

pytestmark = pytest.mark.slow

ONE = {"max_steps": 1, "batch_size": 16}


def run(spec: TrainSpec, out: Path, emit: Any = silent) -> Path:
    return train_on(spec, make_records(16), make_records(4), out, emit)


def test_a_configuration_alone_is_a_student_with_random_weights(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "kd", initial="random", optimization=ONE)
    saved = load_file(tmp_path / "student/model.safetensors")
    (tmp_path / "student/model.safetensors").unlink()
    heard = Heard()
    made = weights(run(spec, tmp_path / "a", heard))
    assert any("its weights at random" in fields["detail"] for fields in heard.of("phase"))
    assert made.keys() == saved.keys()
    assert not same(made, saved)
    assert load_model(tmp_path / "a/model").config.hidden_size == 32
    assert same(made, weights(run(spec, tmp_path / "b")))
    other = spec_of(tmp_path, "kd", initial="random", optimization={**ONE, "seed": 1})
    assert not same(made, weights(run(other, tmp_path / "c")))
    with pytest.raises(BadInput, match=r"lacks \*.safetensors"):
        run(spec_of(tmp_path, "kd", optimization=ONE), tmp_path / "d")


def test_random_weights_end_where_the_rows_do(tmp_path: Path) -> None:
    """A chat model's generation configuration may name an end that its configuration doesn't."""
    spec = spec_of(tmp_path, "sequence_level", initial="random")
    file = tmp_path / "student/generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [3, 7]}))
    run, _ = made(spec)
    assert run.model.generation_config is not None
    assert run.model.generation_config.eos_token_id == [3, 7]


def test_weights_that_lie_beside_the_configuration_are_left_alone(tmp_path: Path) -> None:
    calm = {**ONE, "learning_rate": 1e-12, "seed": 1}
    spec = spec_of(tmp_path, "sequence_level", initial="random", optimization=calm)
    drawn = weights(run(spec, tmp_path / "a"))
    saved = load_file(tmp_path / "student/model.safetensors")
    assert max(float((drawn[name] - saved[name]).abs().max()) for name in saved) > 0.1


def test_a_recipe_measures_no_random_base(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    spec = spec_of(tmp_path, "sequence_level", initial="random", optimization=ONE)
    (tmp_path / "student/model.safetensors").unlink()
    train = {**spec.model_dump(mode="json"), "dataset": str(tmp_path / "dataset")}
    (tmp_path / "recipe.yaml").write_text(json.dumps({"train": train}))
    run_recipe(tmp_path / "recipe.yaml", tmp_path / "out", silent)
    chain = json.loads((tmp_path / "out/chain.json").read_text())
    assert chain["models"][0]["why"] == {"measurement": "the student began with random weights"}


def test_adapters_beside_random_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="random ones are worth nothing"):
        spec_of(tmp_path, "sequence_level", initial="random", lora={})


def test_a_head_smaller_than_the_tokenizer_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "sequence_level")
    shutil.rmtree(tmp_path / "student")
    save_model(tmp_path / "student", make_model(vocab_size=40))
    with pytest.raises(BadInput, match=r"the student's head has fewer rows.*40 against 61"):
        run(spec, tmp_path / "a")


def test_token_ids_beyond_the_head_are_refused_where_ids_have_gaps(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "sequence_level")
    file = tmp_path / "student/tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["vocab"]["w1"] = 500
    file.write_text(json.dumps(told))
    with pytest.raises(BadInput, match=r"the student's head has fewer rows.*61 against 501"):
        run(spec, tmp_path / "a")


class Boom:
    """What a pickle may do when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("boom"),))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_and_never_opened(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = spec_of(tmp_path, "kd")
    (tmp_path / "teacher/model.safetensors").unlink()
    torch.save({"weight": Boom()}, tmp_path / "teacher" / name)
    with pytest.raises(BadInput, match=rf"in pickle files.*{name}.*Convert them"):
        run(spec, tmp_path / "a")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_that_comes_with_a_model_is_never_run(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = save_model(tmp_path / "model", make_model())
    (place / "evil.py").write_text("from pathlib import Path\nPath('boom').touch()\n")
    file = place / ("config.json" if part == "model" else "tokenizer_config.json")
    config = json.loads(file.read_text())
    if part == "model":
        names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        config |= {"model_type": "evil", "architectures": ["EvilModel"], "auto_map": names}
    else:
        names = {"AutoTokenizer": ["evil.Tokenizer", None]}  # type: ignore[dict-item]
        config |= {"tokenizer_class": "EvilTokenizer", "auto_map": names}
    file.write_text(json.dumps(config))
    load = load_model if part == "model" else load_tokenizer
    with pytest.raises(BadInput, match=r"is never run \(trust_remote_code is off\)"):
        load(place)
    assert not (tmp_path / "boom").exists()


def test_rows_beyond_either_models_context_are_left_out_and_counted(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "kd")
    longest = max(len(row.ids) for row in made(spec, make_records(16))[0].rows.rows)
    for side, width in (("teacher", 48), ("student", 32)):
        shutil.rmtree(tmp_path / side)
        few = {"max_position_embeddings": longest - 1, "hidden_size": width}
        save_model(tmp_path / side, make_model(**few))
        heard = Heard()
        run(spec, tmp_path / side, heard)
        told = [fields["detail"] for fields in heard.of("warning")]
        assert f"max_length 64 is cut to the {side}'s {longest - 1}" in told[0]
        (rows,) = (f["detail"] for f in heard.of("phase") if f["name"] == "rows")
        assert "; 0 longer" not in rows
        assert f"longer than {longest - 1} tokens left out" in rows
        shutil.rmtree(tmp_path / side)
        save_model(tmp_path / side, make_model(hidden_size=width))


ADVICE = {
    "sequence_level": ({}, ["batch_size (4)", "gradient_checkpointing", "max_length (64)", "lora"]),
    "kd": ({"teacher_load": {"bits": 8}}, ["stored_kl"]),
    "gkd": ({"samples": 3}, ["max_new_tokens (256) or samples (3)", "teacher_load.bits"]),
}


@pytest.mark.parametrize("method", ADVICE)
def test_memory_that_runs_out_is_told_with_what_to_lower(tmp_path: Path, method: str) -> None:
    fields, advice = ADVICE[method]

    def greedy(model: torch.nn.Module) -> None:
        torch.empty(2**46)  # more than an address space holds: the allocator itself refuses

    size = 1 if method == "kd" else 4
    optimization = {"max_steps": 1, "batch_size": size}
    spec = spec_of(tmp_path, method, **fields, optimization=optimization)
    with pytest.raises(BadInput, match="ran out of memory") as told:
        train_on(spec, make_records(8), [], tmp_path / "out", silent, after_step=greedy)
    for part in advice:
        assert part in told.value.detail
    assert ("batch_size" in told.value.detail) is (size > 1)
    assert ("teacher_load.bits" in told.value.detail) is (method == "gkd")


def test_a_teacher_that_does_not_fit_is_told_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake stands for the loading of a model beyond this machine's memory."""

    def load(*given: Any, **more: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("trainer.methods.teacher.load_model", load)
    with pytest.raises(BadInput, match="ran out of memory"):
        run(spec_of(tmp_path, "kd"), tmp_path / "a")


def test_a_pruned_teacher_is_a_student(tmp_path: Path) -> None:
    """A stage's student is a plain directory with its own shape; its teacher is the one before."""
    spec = spec_of(tmp_path, "kd", optimization=ONE)
    write_dataset(tmp_path)
    plan = {
        "model": str(tmp_path / "teacher"),
        "dataset": str(tmp_path / "dataset"),
        "stages": [{"kind": "depth", "layers": 1}],
        "serve_check": False,
    }
    (made,) = compress(CompressSpec.model_validate(plan), tmp_path / "pruned", silent)
    changed = spec.model_copy(update={"student": made.model})
    trained = load_model(run(changed, tmp_path / "out"))
    assert trained.config.num_hidden_layers == 1
    assert make_tokenizer().get_vocab() == load_tokenizer(tmp_path / "out/model").get_vocab()
