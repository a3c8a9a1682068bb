"""Token ids and the one mask."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from prompts.record import FunctionCall, Message, ToolCall
from tests.trainer.conftest import (
    TEMPLATE,
    make_model,
    make_record,
    make_records,
    make_tokenizer,
)
from trainer import beside
from trainer.compress.plan import serving_prompts
from trainer.compress.vllm_server import Engine
from trainer.data import collate, encode, render_prompts, show_row
from trainer.errors import BadInput
from trainer.spec import DatasetEval

END = frozenset({3})


def test_the_mask_covers_the_completion_with_its_end_and_nothing_else(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    record = make_record(0, "w1 w2", "w3 The answer is 4 .")
    (row,) = encode([record], tokenizer, 100, END).rows
    batch = collate([row])
    given = batch["input_ids"][0][~batch["completion_mask"][0]].tolist()
    learnt = batch["input_ids"][0][batch["completion_mask"][0]].tolist()
    assert tokenizer.convert_ids_to_tokens(given) == [
        "<s>",
        "<user>",
        "w1",
        "w2",
        "<end>",
        "<assistant>",
    ]
    assert tokenizer.convert_ids_to_tokens(learnt) == [
        "w3",
        "The",
        "answer",
        "is",
        "4",
        ".",
        "<end>",
    ]


CALLING = (
    "{{ '<s>' }}{% for t in tools or [] %} {{ t.function.name }}{% endfor %}"
    "{% for m in messages %}{{ '<' + m.role + '>' }} {{ m.content }}"
    "{% for c in m.tool_calls or [] %} {{ c.function.name }} {{ c.function.arguments.to }}"
    "{% endfor %} {{ '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def functions(name: str) -> str:
    """One, as rows keep them."""
    return json.dumps([{"type": "function", "function": {"name": name, "parameters": {}}}])


def test_functions_and_their_calls_are_written_by_the_template() -> None:
    call = ToolCall(function=FunctionCall(name="w5", arguments='{"to": "w6"}'))
    said = (Message(role="assistant", content="", tool_calls=(call,)),)
    record = make_record(0, "w1", "w2", tools=functions("w5"))
    record = record.model_copy(update={"completion": said})
    tokenizer = make_tokenizer(CALLING)
    (row,) = encode([record], tokenizer, 100, END).rows
    words = tokenizer.convert_ids_to_tokens(row.ids.tolist())
    assert words[:3] == ["<s>", "w5", "<user>"]
    assert words[row.prompt_tokens :] == ["w5", "w6", "<end>"]


def test_the_mask_goes_by_position_where_eos_is_the_pad() -> None:
    tokenizer = make_tokenizer(pad="<end>")
    short, long = make_record(0, "w1", "w2"), make_record(1, "w1 w2 w3", "w4 w5 w6")
    rows = encode([short, long], tokenizer, 100, END).rows
    mask = collate(rows)["completion_mask"]
    assert mask.sum(1).tolist() == [2, 4]
    assert np.flatnonzero(mask[0]).tolist() == [5, 6]


def test_prompts_are_rendered_as_they_are_trained(tokenizer: PreTrainedTokenizerFast) -> None:
    records = make_records(5)
    rows = encode(records, tokenizer, 100, END).rows
    asked = render_prompts([record.prompt for record in records], tokenizer)
    assert [row.ids[: row.prompt_tokens].tolist() for row in rows] == asked


@pytest.mark.parametrize("asker", ["evaluation", "evaluation in vLLM", "serving check"])
def test_rows_are_asked_with_their_functions_as_they_were_trained(
    asker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two with other functions than each other are two prompts. Fakes stand for the engines."""
    records = [
        make_record(0, "w1", "w2", tools=functions("w5")),
        make_record(1, "w1", "w3", tools=functions("w6")),
        make_record(2, "w1", "w4"),
    ]
    tokenizer, model, asked = make_tokenizer(CALLING), make_model(), list[list[int]]()
    monkeypatch.setattr(beside, "answer_greedily", lambda model, ids, *rest: asked.extend(ids))
    monkeypatch.setattr(beside, "measure_in_vllm", lambda folder, ids, *rest: asked.extend(ids))
    spec, engine = DatasetEval(dataset="d"), Engine(Path("python"), "vllm", "0", lowrank=False)
    if asker == "evaluation":
        beside.answer(model, tokenizer, records, spec)
    elif asker == "evaluation in vLLM":
        beside.speed_in_vllm("model", model, tokenizer, records, spec, engine)
    else:
        asked.extend(map(list, serving_prompts(records, tokenizer, model)))
    trained = encode(records, tokenizer, 100, END).rows
    assert asked == [row.ids[: row.prompt_tokens].tolist() for row in trained]
    assert tokenizer.convert_ids_to_tokens(asked[0])[:3] == ["<s>", "w5", "<user>"]


def test_several_turns_and_a_system_message(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = (
        Message(role="system", content="w9"),
        Message(role="user", content="w1"),
        Message(role="assistant", content="w2"),
        Message(role="user", content="w3"),
    )
    record = make_record(0, "", "w4").model_copy(update={"prompt": prompt})
    (row,) = encode([record], tokenizer, 100, END).rows
    learnt = tokenizer.convert_ids_to_tokens(row.ids[row.prompt_tokens :].tolist())
    assert learnt == ["w4", "<end>"]


def test_what_a_template_writes_after_the_end_is_cut() -> None:
    tail = make_tokenizer(TEMPLATE.replace("{{ '<end>' }}", "{{ '<end>' }} {{ 'w0' }} "))
    (row,) = encode([make_record(0, "w1", "w2")], tail, 100, END).rows
    assert tail.convert_ids_to_tokens(row.ids.tolist())[-2:] == ["w2", "<end>"]


def test_a_template_without_an_end_gets_the_tokenizers() -> None:
    endless = make_tokenizer(
        "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
    )
    (row,) = encode([make_record(0, "w1", "w2")], endless, 100, END).rows
    assert endless.convert_ids_to_tokens(row.ids.tolist())[-2:] == ["w2", "<end>"]


def test_too_long_rows_are_left_out_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    records = make_records(10)
    lengths = [len(row.ids) for row in encode(records, tokenizer, 100, END).rows]
    limit = sorted(lengths)[4]
    made = encode(records, tokenizer, limit, END)
    assert len(made.rows) == sum(length <= limit for length in lengths)
    assert made.too_long == 10 - len(made.rows)
    assert made.longest == max(lengths)


def test_all_rows_too_long_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(BadInput, match="Raise optimization"):
        encode(make_records(3), tokenizer, 8, END)


def test_no_chat_template_is_refused() -> None:
    with pytest.raises(BadInput, match=r"no chat template.*chat_template\.jinja"):
        encode(make_records(1), make_tokenizer(template=None), 100, END)


def test_a_template_that_rewrites_the_prompt_is_refused() -> None:
    fickle = make_tokenizer(
        "{% for m in messages %}{% if messages|length > 1 and loop.first %}w0 {% endif %}"
        "{{ m.content }} {{ '<end>' }}{% endfor %}"
    )
    with pytest.raises(BadInput, match="row r0's prompt differently"):
        encode(make_records(1), fickle, 100, END)


def test_a_prompt_of_no_tokens_is_refused() -> None:
    bare = make_tokenizer("{% for m in messages %}{{ m.content }} {% endfor %}")
    assert encode([make_record(0, "w1", "w2")], bare, 100, END).rows
    with pytest.raises(BadInput, match="row r1's prompt has no tokens"):
        encode([make_record(0, "w1", "w2"), make_record(1, "", "w2 w3")], bare, 100, END)


def test_a_template_that_refuses_a_role_is_quoted() -> None:
    strict = make_tokenizer("{{ raise_exception('no system role here') }}")
    with pytest.raises(BadInput, match="no system role here"):
        encode(make_records(1), strict, 100, END)


@pytest.mark.parametrize("broken", ["{{ messages[0].content + 1 }}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_as_python_does_is_named(broken: str) -> None:
    with pytest.raises(BadInput, match=r"the chat template refuses row r0: .*Roles"):
        encode(make_records(1), make_tokenizer(broken), 100, END)


def test_a_completion_with_another_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    record = make_record(0, "w1", "w2")
    tool = record.model_copy(update={"completion": (Message(role="tool", content="w2"),)})
    with pytest.raises(BadInput, match="assistant messages only"):
        encode([tool], tokenizer, 100, END)


def test_a_row_can_be_looked_at(tokenizer: PreTrainedTokenizerFast) -> None:
    (row,) = encode([make_record(0, "w1", "w2 .")], tokenizer, 100, END).rows
    shown = show_row(row, tokenizer)
    assert "3 learnt" in shown
    assert shown.endswith("w2 | . | <end>")
