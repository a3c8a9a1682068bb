"""Universal logit distillation: texts aligned, teachers with other tokenizers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.trainer.conftest import (
    SPECIAL,
    TEMPLATE,
    make_model,
    make_record,
    make_tokenizer,
    save_model,
)
from tests.trainer.methods.made import (
    all_rows,
    loss_of,
    made,
    spec_of,
)
from trainer.batch import silence
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.methods.uld import aligned, beginnings


def letters() -> PreTrainedTokenizerFast:
    """Another tokenizer: a token for each character."""
    characters = [*"abcdefghijklmnopqrstuvwxyzT0123456789. "]
    vocabulary = {word: index for index, word in enumerate(SPECIAL + characters)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens(SPECIAL)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="<end>", unk_token="<unk>"
    )
    made.chat_template = TEMPLATE
    made.clean_up_tokenization_spaces = False
    return made


def test_places_behind_the_same_text_are_aligned() -> None:
    """'The answer' as [The, answer, end] and as its characters, the space one of them."""
    assert aligned([0, 3, 10], [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 10]) == [0, 3, 10]
    assert aligned([0, 2, 5], [0, 3, 5]) == [0, -1, 2]


def test_a_token_that_begins_within_a_character_has_no_place() -> None:
    """Behind half of a character's bytes no other text lies, though it is as many characters."""
    text, found = "aé中b", []
    for merges in ([], [("Ã", "©"), ("a", "Ã©"), ("ä", "¸"), ("ä¸", "Ń")]):
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = {one: n for n, one in enumerate(["</s>", *letters, *("".join(m) for m in merges)])}
        inner = Tokenizer(models.BPE(words, merges))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
        ids = [0, *tokenizer(text)["input_ids"], 0]
        found.append(beginnings(TokenRow("r", np.asarray(ids, dtype=np.int32), 1), text, tokenizer))
    assert found == [[0, 1, -1, 2, -1, -1, 3, 4], [0, 2, 3, 4]]
    assert aligned(*found) == [0, -1, -1, 1, -1, -1, 2, 3]
    assert aligned(*reversed(found)) == [0, 3, 6, 7]


def test_what_a_template_says_before_the_answer_has_no_place() -> None:
    """As an empty thought between tags that are no special tokens: it is one side's alone."""
    words, text = make_tokenizer(), "w1 w2 7"
    said = {}
    for name, before in (("plain", ""), ("thinking", "w5 w6 ")):
        ids = [2, *words(before + text, add_special_tokens=False)["input_ids"], 3]
        row = TokenRow("r", np.asarray(ids, dtype=np.int32), 1)
        said[name] = beginnings(row, text, words)
    assert said == {"plain": [0, 2, 5, 7], "thinking": [-1, -1, 0, 2, 5, 7]}
    assert aligned(said["thinking"], said["plain"]) == [-1, -1, 0, 1, 2, 3]
    assert aligned(said["plain"], said["thinking"]) == [2, 3, 4, 5]


def test_uld_of_a_teacher_with_the_same_tokenizer_compares_every_place(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "uld", weight=2.0)
    run, student = made(spec)
    same = made(spec.model_copy(update={"teacher": spec.student}))[1]
    batch = all_rows(run)
    loss, metrics = loss_of(student, batch)
    total = metrics["cross_entropy"] + 2 * metrics["sorted_distance"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert metrics["sorted_distance"] > 0.01
    assert loss_of(same, batch)[1]["sorted_distance"].item() == pytest.approx(0, abs=1e-5)


def test_places_in_a_long_answer_take_time_by_its_length() -> None:
    """Decoded are a few tokens for each; and where a tokenizer writes a part of a text otherwise
    than the whole, all of them."""
    decoded: list[int] = []

    class Counting(PreTrainedTokenizerFast):
        parts_differ = False

        def decode(self, token_ids: Any, *given: Any, **options: Any) -> str:
            decoded.append(len(token_ids))
            text = str(super().decode(token_ids, *given, **options))
            return text.replace(" ", "") if self.parts_differ and len(token_ids) < 9 else text

    made_of: Any = Counting
    tokenizer = made_of(tokenizer_object=make_tokenizer()._tokenizer, eos_token="<end>")
    words = [f"w{number % 40}" for number in range(300)]
    ids = tokenizer(" ".join(words))["input_ids"]
    row = TokenRow("r", np.asarray([2, *ids, 3], dtype=np.int32), 1)
    expected = [len(" ".join(words[:number])) for number in range(301)]
    decoded.clear()
    assert beginnings(row, " ".join(words), tokenizer) == expected
    assert sum(decoded) < 4 * len(ids) + len(ids)
    tokenizer.parts_differ = True
    assert beginnings(row, " ".join(words), tokenizer)[20:] == expected[20:]


def test_uld_takes_a_teacher_that_a_kl_refuses(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "uld")
    tokenizer = letters()
    save_model(tmp_path / "letters", make_model(2, vocab_size=len(tokenizer)), tokenizer)
    other = spec.model_copy(update={"teacher": str(tmp_path / "letters")})
    run, student = made(other, [make_record(0, "w1 w2", "The answer is 7 .")])
    loss, metrics = loss_of(student, all_rows(run))
    assert metrics["sorted_distance"] > 0
    hotter = made(
        other.model_copy(update={"kd_temperature": 3.0}),
        [make_record(0, "w1 w2", "The answer is 7 .")],
    )
    assert loss_of(hotter[1], all_rows(run))[0] != loss
    with pytest.raises(BadInput, match="different vocabularies"):
        made(spec_of(tmp_path, "kd").model_copy(update={"teacher": str(tmp_path / "letters")}))


def test_uld_asks_nothing_of_a_pass_without_rows(tmp_path: Path) -> None:
    """Its tokens are the student's, and may be none of the teacher's."""
    save_model(tmp_path / "few", make_model(2, vocab_size=300), letters())
    spec = spec_of(tmp_path, "uld").model_copy(update={"teacher": str(tmp_path / "few")})
    save_model(tmp_path / "student", make_model(vocab_size=600))
    run, student = made(spec)
    batch = silence(all_rows(run))
    batch.input_ids[:] = 599
    loss, _ = student(lambda one: one.loss(batch, 1.0))
    assert loss.item() == 0


def test_rows_longer_than_the_teacher_holds_in_its_own_tokens_are_left_out(tmp_path: Path) -> None:
    """Characters are more tokens than words: what fits the student doesn't fit the teacher."""
    tokenizer = letters()
    few = make_model(2, vocab_size=len(tokenizer), max_position_embeddings=24)
    save_model(tmp_path / "letters", few, tokenizer)
    spec = spec_of(tmp_path, "uld").model_copy(update={"teacher": str(tmp_path / "letters")})
    long, short = make_record(0, "w1 w2", "The answer is 7 ."), make_record(1, "w1", "w2 7")
    run, student = made(spec, [long, short])
    assert [row.row for row in run.rows.rows] == ["r1"]
    assert (run.rows.too_long, run.rows.cut, run.rows.unsuited) == (1, 0, 0)
    assert run.rows.longest == 12  # of the row left out, in the student's tokens
    assert torch.isfinite(loss_of(student, all_rows(run))[0])
    with pytest.raises(BadInput, match=r"no row is short enough for the teacher.*holds 24"):
        made(spec, [long])
