"""What the study of emergent abilities trains on: the demo teacher's right answers, by skill."""

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality_data import DEMO, TEACHER, is_right
from examples.demo.seeds import draw_seed_problems
from examples.demo.world import Problem
from prompts.dataset import assemble, read_rows, write_chunk
from prompts.record import Kind, Message, Record
from trainer.data import render_prompts
from trainer.generation import answer_greedily
from trainer.loading import end_ids, load_model, load_tokenizer


@dataclass(frozen=True)
class Asked:
    """A problem as the teacher is asked it."""

    id: str
    prompt: str
    gold: str
    seed: str
    demo_ids: tuple[str, ...] = ()


def make_datasets(out: Path, problems: int) -> None:
    """`cot`, `direct` (the same problems, the answer alone), `icl` and `if`; each whole or not
    there, a tenth of its rows held out."""
    _make(out, "cot", Kind.COT, stories(problems), is_right)
    _direct(out)
    # Their answers are a word or a few: twice as many take no longer.
    _make(out, "icl", Kind.ICL, mappings(2 * problems), _exact)
    _make(out, "if", Kind.IF, instructions(2 * problems), _exact)


def stories(count: int) -> list[Asked]:
    """Story arithmetic, with the words that ask for steps."""
    lines = (DEMO / "data/cot.seeds.jsonl").read_text("utf-8").splitlines()[:count]
    return [
        Asked(one["id"], f"{one['question']} Think step by step.", str(one["answer"]), line)
        for line, one in zip(lines, map(json.loads, lines), strict=True)
    ]


def mappings(count: int) -> list[Asked]:
    """Tasks in context, a mapping of its own for each with its demonstrations before the query."""
    return [
        Asked(one.id, one.user, one.answer, json.dumps(one.seed), _demonstrations(one))
        for one in draw_seed_problems("icl", count)
    ]


def instructions(count: int) -> list[Asked]:
    """Instructions of one to three operations."""
    return [
        Asked(one.id, one.user, one.answer, json.dumps(one.seed))
        for one in draw_seed_problems("if", count)
    ]


def _demonstrations(one: Problem) -> tuple[str, ...]:
    return tuple(f"{one.id}-{number}" for number in range(one.user.count("Output: ")))


def record_of(asked: Asked, kind: Kind, said: str, number: int) -> Record:
    """A row with the teacher's answer."""
    return Record(
        id=asked.id,
        kind=kind,
        prompt=(Message(role="user", content=asked.prompt),),
        completion=(Message(role="assistant", content=said),),
        answer=asked.gold,
        gold=asked.gold,
        reasoning=said if kind is Kind.COT else None,
        demo_ids=asked.demo_ids,
        split="validation" if number % 10 == 0 else "train",
        teacher="demo-teacher",
        finish_reason="stop",
        content_hash=hashlib.sha256(f"{asked.prompt}{said}".encode()).hexdigest(),
        seed=asked.seed,
    )


def _make(
    out: Path, name: str, kind: Kind, asked: list[Asked], right: Callable[[str, str], bool]
) -> None:
    if (out / name).is_dir():
        return
    model, tokenizer = load_model(TEACHER), load_tokenizer(TEACHER)
    prompts = render_prompts([[Message(role="user", content=a.prompt)] for a in asked], tokenizer)
    made = answer_greedily(model, prompts, 96, 100, end_ids(model, tokenizer))
    texts = [str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for ids in made.ids]
    records = [
        record_of(one, kind, said, number)
        for number, (one, said) in enumerate(zip(asked, texts, strict=True))
        if right(said, one.gold)
    ]
    write_dataset(out / name, records)


def _direct(out: Path) -> None:
    """The problems that the teacher solved in steps, with their answers alone."""
    if (out / "direct").is_dir():
        return
    rows = [row for split in ("train", "validation") for row in read_rows(out / "cot", split)]
    short = [
        row.model_copy(
            update={
                "completion": (Message(role="assistant", content=f"The answer is {row.answer}."),),
                "reasoning": None,
            }
        )
        for row in rows
    ]
    write_dataset(out / "direct", short)


def guessed(asked: Path) -> float:
    """How many of these in-context problems whoever says any label that is shown has right."""
    shares = []
    for row in map(json.loads, asked.read_text("utf-8").splitlines()):
        shown = set(re.findall(r"Output: (\S+)", row["prompt"][-1]["content"]))
        shares.append((row["answer"] in shown) / len(shown))
    return statistics.mean(shares)


def write_dataset(target: Path, records: list[Record]) -> None:
    """Whole, or not there."""
    scratch = target.parent / f".{target.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    chunk = write_chunk(scratch / "000000.parquet", records).path
    recipe = {"import": {"source": "benchmarks.emergent", "name": target.name}}
    assemble(scratch / "made", [chunk], recipe=recipe, seeds=len(records), name=target.name)
    (scratch / "made").rename(target)
    shutil.rmtree(scratch)


def _exact(said: str, gold: str) -> bool:
    return said.strip().splitlines()[-1:] == [gold]
