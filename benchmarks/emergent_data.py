"""What the study of emergent abilities trains on: the demo teacher's right answers, by skill."""

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.quality_data import DEMO, TEACHER, is_right
from examples.demo.heldout import heldout
from examples.demo.seeds import draw_seed_problems
from examples.demo.world import Problem, draw_story
from examples.demo.world.mappings import icl_problem
from examples.demo.world.problem import Split
from examples.demo.world.words import CATEGORIES, LABELS
from prompts.dataset import assemble, read_rows, write_chunk
from prompts.record import Kind, Message, Record
from trainer.data import render_prompts
from trainer.generation import answer_greedily
from trainer.loading import end_ids, load_model, load_tokenizer

TASKS = "tasks"
TASKS_SHOWN = "tasks-shown"
"""The same words behind demonstrations."""
FEW = "few"
"""Stories that a model can answer at once, and so few of them that the answers alone don't teach
it."""
FEW_STORIES, HELD_OUT_STORIES = 300, 300
NEW_WORDS = 4
"""Words of each category that `tasks` never has."""
SHOWN = (4, 6, 8)
"""Demonstrations."""
_CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}


@dataclass(frozen=True)
class Asked:
    """A problem as the teacher is asked it."""

    id: str
    prompt: str
    gold: str
    seed: str
    demo_ids: tuple[str, ...] = ()


def make_datasets(out: Path, problems: int) -> None:
    """`cot`, `direct` (the same problems, the answer alone), `few`, `few-direct`, `icl`, `if` and
    `tasks`; each whole or not there, a tenth of its rows held out; and the problems that `few` and
    `tasks` are measured on."""
    _make(out, "cot", Kind.COT, stories(problems), is_right)
    _direct(out, "cot", "direct")
    _make(out, FEW, Kind.COT, short_stories(min(problems, FEW_STORIES)), is_right)
    _direct(out, FEW, f"{FEW}-direct")
    _held_out_stories(out / f"{FEW}.jsonl")
    # Their answers are a word or a few: twice as many take no longer.
    _make(out, "icl", Kind.ICL, mappings(2 * problems), _exact)
    _make(out, "if", Kind.IF, instructions(2 * problems), _exact)
    _make(out, TASKS, Kind.ICL, tasks(2 * problems), _exact)
    _held_out_tasks(out / f"{TASKS}.jsonl")


def stories(count: int) -> list[Asked]:
    """Story arithmetic, with the words that ask for steps."""
    lines = (DEMO / "data/cot.seeds.jsonl").read_text("utf-8").splitlines()[:count]
    return [
        Asked(one["id"], f"{one['question']} Think step by step.", str(one["answer"]), line)
        for line, one in zip(lines, map(json.loads, lines), strict=True)
    ]


def short_stories(count: int) -> list[Asked]:
    """Of one step."""
    rng = Random(FEW)
    found: dict[str, Problem] = {}
    while len(found) < count:
        one = draw_story(rng, "seed", 1, distractors=rng.choice((0, 1, 2)))
        found.setdefault(one.user, one)
    return [
        Asked(f"{FEW}-{n}", one.user, one.answer, json.dumps(one.seed))
        for n, one in enumerate(found.values())
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


def tasks(count: int) -> list[Asked]:
    """Tasks in context that agree: each category has one label in all of them, so that whoever
    answers without demonstrations has something to learn. No row asks for a word that is held out,
    or shows one."""
    rng = Random(TASKS)
    found: dict[str, Problem] = {}
    while len(found) < count:
        one = _draw_task(rng, rng.choice(SHOWN))
        found.setdefault(one.user, one)
    return [
        Asked(f"{TASKS}-{n}", one.user, one.answer, json.dumps(one.seed), _demonstrations(one))
        for n, one in enumerate(found.values())
    ]


def _draw_task(rng: Random, shown: int, query: str | None = None) -> Problem:
    """So many words of three categories with their labels, before a word of one of those, drawn
    where none is given."""
    while True:
        categories = rng.sample(list(CATEGORIES), 3)
        pool = [word for category in categories for word in CATEGORIES[category][NEW_WORDS:]]
        *words, last = rng.sample(pool, shown + 1)
        asked = query or last
        if _CATEGORY_OF[asked] in map(_CATEGORY_OF.get, words):
            labelled = [(word, _label(word)) for word in words]
            split: Split = "seed" if query is None else "heldout"
            return icl_problem(labelled, asked, _label(asked), split, TASKS)


def _label(word: str) -> str:
    """Of its category."""
    return LABELS[list(CATEGORIES).index(_CATEGORY_OF[word])]


def _held_out_tasks(target: Path) -> None:
    """Words that no row has, each alone as the student is asked, and behind demonstrations, as the
    teacher is."""
    rng, rows = Random(f"{TASKS} held out"), []
    for word in [word for words in CATEGORIES.values() for word in words[:NEW_WORDS]]:
        alone = icl_problem([], word, _label(word), "heldout", TASKS)
        shown = _draw_task(rng, SHOWN[-1], word)
        for skill, problem in ((TASKS, alone), (TASKS_SHOWN, shown)):
            rows.append(_question(f"{skill}-{word}", skill, "icl", "exact_last_line", problem))
    target.write_text("\n".join(map(json.dumps, rows)), "utf-8")


def _held_out_stories(target: Path) -> None:
    """Of one step."""
    asked = enumerate(heldout("cot-1", HELD_OUT_STORIES))
    rows = [_question(f"{FEW}-{n}", FEW, "cot", "numeric", problem) for n, problem in asked]
    target.write_text("\n".join(map(json.dumps, rows)), "utf-8")


def _question(name: str, skill: str, kind: str, check: str, problem: Problem) -> dict[str, Any]:
    """A row of an evaluation file."""
    prompt = [{"role": "user", "content": problem.user}]
    about = {"id": name, "skill": skill, "kind": kind, "check": check}
    return {**about, "prompt": prompt, "answer": problem.answer}


def asked_as(questions: Path, target: Path, prefix: str) -> Path:
    """The same questions behind a prefix, which names the task that a student is asked for."""
    rows = [json.loads(line) for line in questions.read_text("utf-8").splitlines()]
    for row in rows:
        row["prompt"][-1]["content"] = prefix + row["prompt"][-1]["content"]
    target.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return target


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


def _direct(out: Path, steps: str, name: str) -> None:
    """The problems that the teacher solved in steps, with their answers alone."""
    if (out / name).is_dir():
        return
    rows = [row for split in ("train", "validation") for row in read_rows(out / steps, split)]
    short = [
        row.model_copy(
            update={
                "completion": (Message(role="assistant", content=f"The answer is {row.answer}."),),
                "reasoning": None,
            }
        )
        for row in rows
    ]
    write_dataset(out / name, short)


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
