"""Evaluation rows, checks, greedy answers, distance and what a measurement holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prompts.record import Message
from tests.trainer.compress.families import make
from tests.trainer.compress.models import token_rows
from tests.trainer.conftest import make_model, make_records, make_tokenizer, save_model
from trainer.assess import read_rows as read_dataset_rows
from trainer.data import collate, encode
from trainer.errors import BadInput
from trainer.evaluate import compare, is_right, listen, mean_kl, measure
from trainer.events import silent
from trainer.generation import answer_greedily
from trainer.loading import load_model
from trainer.memory import tensor_bytes
from trainer.recipe import evaluate
from trainer.spec import EvalRow, EvalSpec, read_rows

END = frozenset({3})


def row(check: str, answer: str) -> EvalRow:
    message = (Message(role="user", content="?"),)
    return EvalRow(id="a", skill="s", prompt=message, answer=answer, check=check)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "answer", "text", "right"),
    [
        ("numeric", "12", "so 3 and 4 . The answer is 12 .", True),
        ("numeric", "12", "The answer is 12.0", True),
        ("numeric", "... #### 1,200", "The answer is 1200", True),
        ("numeric", "12", "12", True),
        ("numeric", "12", "The answer is 12 . No, the answer is 13", False),
        ("numeric", "12", "3\n12", True),
        ("numeric", "12", "it is 12 or so", False),
        ("numeric", "12", "", False),
        ("exact", "RED", " RED\n", True),
        ("exact", "RED", "red", False),
        ("exact_last_line", "RED", "blue\n\nRED\n", True),
        ("exact_last_line", "RED", "RED\nblue", False),
        ("exact_last_line", "RED", "", False),
    ],
)
def test_checks(check: str, answer: str, text: str, right: bool) -> None:
    assert is_right(row(check, answer), text) is right


def line(number: int, skill: str = "s", **changes: object) -> str:
    fields = {
        "id": f"e{number}",
        "skill": skill,
        "prompt": [{"role": "user", "content": "w1 w2"}],
        "answer": "3",
        "check": "numeric",
    }
    return json.dumps({**fields, **changes})


def test_the_first_rows_of_each_skill_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join([line(1), line(2, "t"), "", line(3), line(4), line(5, "t")]))
    assert [one.id for one in read_rows(path, 2)] == ["e1", "e2", "e3", "e5"]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("{", "line 2.*not JSON"),
        (line(2, check="fuzzy"), r"line 2.*check"),
        (line(2, answer="many"), r"line 2.*no number"),
        (line(2, answer=" ", check="exact"), r"line 2.*answer: it is empty"),
        (line(2, answer=None), r"line 2.*answer: Input should be a valid string"),
        (line(2, extra=1), r"line 2.*extra"),
        (line(2, prompt=[]), r"line 2.*prompt"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: str, problem: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(f"{line(1)}\n{bad}\n")
    with pytest.raises(BadInput, match=problem):
        read_rows(path)


def test_lines_end_where_jsons_do(tmp_path: Path) -> None:
    """JSON's strings may hold other separators of lines as they are."""
    path = tmp_path / "e.jsonl"
    words = "w1\u2028w2\u0085w3"
    asked = json.loads(line(1, prompt=[{"role": "user", "content": words}]))
    path.write_text(f"{json.dumps(asked, ensure_ascii=False)}\r\n\n{line(2)}\n", "utf-8")
    assert [row.prompt[0].content for row in read_rows(path)] == [words, "w1 w2"]


def test_no_rows_no_file_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no evaluation file"):
        read_rows(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(BadInput, match="holds no evaluation rows"):
        read_rows(tmp_path / "empty")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        read_rows(tmp_path / "latin")


def test_answers_in_batches_are_those_of_each_prompt_alone() -> None:
    """Rows end at different times and leave the batch; the plain loop below knows no batch."""
    model = make_model(seed=3, initializer_range=0.5)
    prompts = [[2, 4, *range(10, 10 + n), 3, 5] for n in (1, 7, 3, 5, 2, 6, 4)]
    ends = frozenset(range(20, 40))
    made = answer_greedily(model, prompts, 12, batch_size=4, end_ids=ends)
    alone, cut = [], 0
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
        answer = ids[len(prompt) :]
        cut += answer[-1] not in ends
        alone.append(tuple(answer[:-1] if answer[-1] in ends else answer))
    assert list(made.ids) == alone
    assert made.cut == cut
    assert 0 < cut < len(prompts)
    assert len({len(answer) for answer in alone}) > 2


def test_mean_kl_is_the_dense_one_and_zero_for_the_same_model() -> None:
    tokenizer = make_tokenizer()
    rows = encode(make_records(7), tokenizer, 100, END).rows
    reference, model = make_model(1), make_model(2)
    total, count = 0.0, 0
    for one in rows:
        batch = collate([one])
        with torch.no_grad():
            log_p, log_q = (
                torch.log_softmax(m(input_ids=batch["input_ids"]).logits[0, :-1].double(), -1)
                for m in (reference, model)
            )
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        total += float(kl[batch["completion_mask"][0, 1:]].sum())
        count += one.completion_tokens
    assert mean_kl(reference, model, rows, batch_size=3) == (
        pytest.approx(total / count, rel=1e-5),
        count,
    )
    assert mean_kl(model, model, rows)[0] == pytest.approx(0.0, abs=1e-9)


def test_what_two_models_say_is_summed_row_by_row() -> None:
    """Against `assess.read_rows`, which goes another way to the same sums."""
    model, reference = (make("llama", seed=seed) for seed in (0, 1))
    rows = token_rows(7)
    found = compare(*(listen(one, rows, batch_size=3) for one in (reference, model)))
    read = read_dataset_rows(model, reference, rows, 2)
    for mine, theirs in (
        (found.tokens, read.tokens),
        (found.nats, read.nats),
        (found.kl, read.kl),
        (found.agreed, read.agreed),
    ):
        assert mine.tolist() == pytest.approx(theirs, rel=1e-5)
    assert found.tokens.tolist() == [row.completion_tokens for row in rows]
    same = compare(*(listen(model, rows, batch_size=3) for _ in range(2)))
    assert (float(same.kl.sum()), torch.equal(same.agreed, same.tokens)) == (0.0, True)


def test_logits_are_capped_as_the_model_caps_them() -> None:
    """A Gemma 2 whose cap shows: its own logits against what the measures compute."""
    model, plain = (make("gemma2", final_logit_softcapping=cap) for cap in (0.5, None))
    rows = token_rows(3)
    kl, tokens = mean_kl(plain, model, rows)
    total = 0.0
    for row in rows:
        ids = torch.from_numpy(row.ids.astype("int64"))[None]
        with torch.no_grad():
            p, q = (one(ids).logits[0, row.prompt_tokens - 1 : -1] for one in (plain, model))
        p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    assert kl == pytest.approx(total / tokens, rel=1e-4)
    read = read_dataset_rows(model, None, rows, 2)
    assert sum(read.nats) == pytest.approx(float(nats_of(model, rows)), rel=1e-5)


def nats_of(model: Any, rows: Any) -> float:
    """Cross-entropy of completions, by the model's own logits."""
    total = 0.0
    for row in rows:
        ids = torch.from_numpy(row.ids.astype("int64"))[None]
        with torch.no_grad():
            found = model(ids).logits[0, row.prompt_tokens - 1 : -1].log_softmax(-1)
        total -= float(found.gather(1, ids[0, row.prompt_tokens :, None]).sum())
    return total


def test_a_measurement_counts_what_is_there(tmp_path: Path) -> None:
    model = make_model()
    directory = save_model(tmp_path / "model", model)
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join([line(1), line(2), line(3, "t")]))
    spec = EvalSpec(data=str(path), max_new_tokens=5, batch_size=2)
    made = measure(directory, spec)
    assert {skill: one.n for skill, one in made.skills.items()} == {"s": 2, "t": 1}
    assert made.parameters == sum(p.numel() for p in model.parameters())
    assert made.weight_bytes == (directory / "model.safetensors").stat().st_size
    assert 0 < made.generated_tokens <= 15
    assert made.kl is None
    assert measure(directory, spec.model_copy(update={"limit_per_skill": 1})).skills["s"].n == 1
    assert (made.prefill_tokens_per_s or 0) > 0
    assert (made.peak_memory_bytes or 0) >= tensor_bytes(model)
    fewer = measure(directory, spec.model_copy(update={"max_new_tokens": 1}))
    assert fewer.generated_tokens == 3


def test_a_prompt_beyond_the_model_is_refused(tmp_path: Path) -> None:
    directory = save_model(tmp_path / "model", make_model(max_position_embeddings=6))
    path = tmp_path / "e.jsonl"
    path.write_text(line(1, prompt=[{"role": "user", "content": "w1 w2 w3"}]))
    with pytest.raises(BadInput, match="row e1 doesn't fit"):
        measure(directory, EvalSpec(data=str(path)))


def test_a_long_prompt_shortens_no_answer_but_its_own(tmp_path: Path) -> None:
    """A model of 24 positions: 10 new tokens fit behind the short prompt, 2 behind the long one."""
    directory = save_model(tmp_path / "model", make_model(max_position_embeddings=24))
    path = tmp_path / "e.jsonl"
    words = [" ".join(f"w{n}" for n in range(count)) for count in (2, 18)]
    asked = [line(n, prompt=[{"role": "user", "content": text}]) for n, text in enumerate(words)]
    spec = EvalSpec(data=str(path), max_new_tokens=10)
    made = []
    for lines in ([asked[0]], [asked[1]], asked):
        path.write_text("\n".join(lines))
        made.append(measure(directory, spec).generated_tokens)
    assert made == [10, 2, 12]


def test_weights_that_are_no_numbers_are_not_measured(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.weight")[0, 0] = torch.nan
    directory = save_model(tmp_path / "model", model)
    (tmp_path / "e.jsonl").write_text(line(1))
    spec = EvalSpec(data=str(tmp_path / "e.jsonl"), max_new_tokens=5)
    with pytest.raises(BadInput, match=r"model has weights that are not finite.*mlp\.up_proj"):
        evaluate(str(directory), spec, tmp_path / "measurement.json", silent)
    assert measure(directory, spec).skills["s"].correct == 0  # a stage's gate tells of its own


@pytest.mark.parametrize("what", ["empty", "no weights", "broken", "file"])
def test_what_is_no_model_is_refused_in_words(tmp_path: Path, what: str) -> None:
    directory = tmp_path / "model"
    problem = {
        "empty": "lacks config.json and holds nothing",
        "no weights": r"lacks \*\.safetensors",
        "broken": "can't be loaded",
        "file": "It is a file",
    }
    if what == "file":
        directory.write_text("")
    else:
        directory.mkdir()
    if what in ("no weights", "broken"):
        make_model().config.save_pretrained(directory)
    if what == "broken":
        (directory / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(BadInput, match=problem[what]):
        load_model(directory)
