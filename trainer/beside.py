"""A model's answers beside the dataset's and a teacher's, and what answering cost."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from trainer.compress.serving import measure_in_vllm
from trainer.compress.vllm_server import Engine, ServerFailed, find_engine
from trainer.data import render_asked
from trainer.device import at_work
from trainer.errors import BadInput
from trainer.generation import Answers, answer_greedily
from trainer.loading import NO_LIMIT, end_ids, held_tokens
from trainer.measurement import Sample, Speed
from trainer.spec import DatasetEval


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    spec: DatasetEval,
) -> Answers:
    """Greedy answers to the rows' prompts, each no longer than the model holds behind its own."""
    prompts = render_asked(records, tokenizer)
    ends, held = end_ids(model, tokenizer), held_tokens(model) or NO_LIMIT
    with at_work(model):
        return answer_greedily(model, prompts, spec.max_new_tokens, spec.batch_size, ends, held)


def texts_of(answers: Answers, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The answers in words."""
    return [
        str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for ids in answers.ids
    ]


def shown(
    records: Sequence[Record],
    texts: Sequence[str],
    teacher: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None,
    spec: DatasetEval,
) -> tuple[Sample, ...]:
    """Answers of a few rows, evenly spread, side by side."""
    count = min(spec.samples, len(records))
    places = [index * len(records) // count for index in range(count)]
    chosen = [records[place] for place in places]
    theirs: list[str | None] = [None] * count
    if teacher is not None and chosen:
        theirs = [*texts_of(answer(*teacher, chosen, spec), teacher[1])]
    return tuple(
        Sample(
            id=records[place].id,
            prompt=records[place].prompt[-1].content,
            dataset=records[place].completion[-1].content.strip(),
            model=texts[place],
            teacher=said,
        )
        for place, said in zip(places, theirs, strict=True)
    )


def speed_of(answers: Answers) -> Speed:
    """In transformers."""
    return Speed(
        engine="transformers",
        prefill_tokens_per_s=answers.prefill_tokens_per_s,
        decode_tokens_per_s=answers.decode_tokens_per_s,
    )


def engine_for(spec: DatasetEval, vllm_python: Path | None) -> Engine | None:
    """vLLM, where it was asked for; BadInput where there is none."""
    if not spec.vllm:
        return None
    engine = find_engine(vllm_python)
    if engine is None:
        raise BadInput("no vLLM was found", "Name its environment's Python with --vllm-python.")
    return engine


def speed_in_vllm(
    model_dir: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    spec: DatasetEval,
    engine: Engine | None,
) -> Speed | None:
    """In vLLM, where there is an engine. BadInput where it can't load the model."""
    if engine is None:
        return None
    prompts = render_asked(records, tokenizer)
    limit = new_tokens(model, prompts, spec)
    with tempfile.TemporaryDirectory() as place:
        try:
            log = Path(place, "vllm.log")
            return measure_in_vllm(model_dir, prompts, limit, engine, log)
        except ServerFailed as error:
            raise BadInput(f"vLLM can't serve {model_dir}", str(error)) from error


def new_tokens(model: PreTrainedModel, prompts: Sequence[Sequence[int]], spec: DatasetEval) -> int:
    """How long an answer may be where all have one limit."""
    room = (held_tokens(model) or NO_LIMIT) - max(map(len, prompts))
    return max(1, min(spec.max_new_tokens, room))
