"""One tokenizer for both models: lossless, single digits, and prompts that are exact prefixes."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from examples.demo import world
from examples.demo.batches import encode
from examples.demo.curriculum import draw_problems
from examples.demo.shape import MODELS, ROLES, Role
from examples.demo.tokenizer import load_tokenizer, render, train_tokenizer
from examples.demo.world.words import CATEGORIES, LABELS, LIST_WORDS, NAMES


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(problems=600)


@pytest.mark.parametrize(
    "text",
    ["Ann has 12 pears.", "Ünïcödé ☃ 日本語 \t\r\n  two  spaces ", "12,345.67 <b>&amp;</b> \u0000"],
)
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.tokenize("47+28=75. She has 99 nuts and 1234 eggs.")
    assert [token for token in tokens if any(c.isdigit() for c in token)] == list("472875991234")


def test_words_of_the_world_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    spaced = [*NAMES, *LABELS, *(word for words in CATEGORIES.values() for word in words)]
    words = [f" {word}" for word in spaced] + [word.upper() for word in LIST_WORDS]
    split = [word for word in words if len(tokenizer.tokenize(word)) != 1]
    assert not split


@pytest.mark.parametrize("role", ROLES)
def test_written_out_conversations_equal_the_chat_template(
    tokenizer: PreTrainedTokenizerFast, role: Role
) -> None:
    for problem in draw_problems(role, 0, 0, 0.5, 60):
        text, ranges = render(problem)
        assert text == tokenizer.apply_chat_template(messages_of(problem), tokenize=False)
        start, stop = ranges[-1]
        assert text[start:stop] == f"{problem.completion}<|end|>"


def test_a_prompt_is_an_exact_prefix_of_the_conversation(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for problem in draw_problems("teacher", 0, 1, 0.5, 60):
        messages = messages_of(problem)
        whole = ids_of(tokenizer, messages)
        prompt = ids_of(tokenizer, messages[:-1], add_generation_prompt=True)
        assert whole[: len(prompt)] == prompt


def test_the_template_marks_what_the_assistant_writes(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    problem = world.draw_story(Random(0), "train", 2)
    [(ids, weights)] = encode([problem], tokenizer)
    marked: Any = tokenizer.apply_chat_template(
        messages_of(problem), return_dict=True, return_assistant_tokens_mask=True
    )
    assert marked["input_ids"] == ids
    assert marked["assistant_masks"] == [int(weight > 0) for weight in weights]
    assert tokenizer.convert_ids_to_tokens(ids[-1]) == tokenizer.eos_token == "<|end|>"


def test_rows_are_not_padded_after_the_tokenizer_padded_for_generation(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    problems = draw_problems("teacher", 0, 2, 0.5, 20)
    before = encode(problems, tokenizer)
    tokenizer(["one", "one two three"], padding=True)
    assert encode(problems, tokenizer) == before


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_bundled_tokenizers_are_the_trained_one(role: Role) -> None:
    bundled = load_tokenizer(MODELS / role)
    assert bundled.backend_tokenizer.to_str() == train_tokenizer().backend_tokenizer.to_str()
    assert Path(MODELS / role / "chat_template.jinja").read_text() == bundled.chat_template


def messages_of(problem: world.Problem) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": problem.system}] if problem.system else []
    messages.append({"role": "user", "content": problem.user})
    return [*messages, {"role": "assistant", "content": problem.completion}]


def ids_of(
    tokenizer: PreTrainedTokenizerFast,
    messages: list[dict[str, str]],
    *,
    add_generation_prompt: bool = False,
) -> list[int]:
    encoded: Any = tokenizer.apply_chat_template(
        messages, return_dict=True, add_generation_prompt=add_generation_prompt
    )
    return list(encoded["input_ids"])
