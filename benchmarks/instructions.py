"""Self-instruct and evol-instruct, end to end on real vLLM, by the committed recipes.

The teacher is the demo's instructor, and its world says what is right: whether an instruction is in
the world's grammar and can be carried out, and whether the response to it is the right one. What
became of every row and rewriting is read from the dataset and from the ledger.
"""

import json
import statistics
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stack
from benchmarks.result import Result
from benchmarks.ways import Row, built_by, spec_of
from examples.demo.instructor import verdict
from examples.demo.tasks import Order, Pick, answer_to, is_possible, read_task
from prompts.instructions.self_instruct import WRITE_STEP
from prompts.instructions.steps import WRITING
from prompts.record import Call, Record
from workers.ledger import read_entries

MODEL = Path(__file__).resolve().parent.parent / "examples" / "demo" / "models" / "instructor"
LEAST = 0.9
TARGET = f"of the accepted rows >= {LEAST:.0%} valid instructions with the right response"
QUICK_ROWS = 16
LOOK_S = 0.02

Calls = dict[str, list[Call]]
"""A build's calls by row."""


@dataclass(frozen=True)
class Built:
    """A build's rows and what was asked for each."""

    rows: list[Row]
    calls: Calls

    @property
    def accepted(self) -> list[Record]:
        """The rows that are kept."""
        return [row for row in self.rows if isinstance(row, Record)]


def run(quick: bool) -> Result:
    """The share of right rows among both builds' accepted ones; `growth` has a line for each."""
    found = measure(QUICK_ROWS if quick else None)
    accepted = sum(line["accepted"] for line in found.values())
    right = sum(line["right"] for line in found.values())
    share = right / accepted
    return Result(
        name="instructions",
        ours=share,
        unit="of the accepted rows are valid instructions with the right response",
        ratio=share,
        target=TARGET,
        met=share >= LEAST,
        limit=1.0,
        growth=[
            {f"{name}: {what}": value for what, value in line.items()}
            for name, line in found.items()
        ],
    )


def measure(rows: int | None) -> dict[str, dict[str, float]]:
    """By method: what was proposed, rejected for which reason, accepted, valid and right. With
    `rows`, two rounds of so many rows instead of what the recipes say."""
    with tempfile.TemporaryDirectory() as folder, stack.running(Path(folder), MODEL) as up:
        return {
            "self-instruct": written(build(up, "build-self-instruct", rows)),
            "evol-instruct": evolved(build(up, "build-evol-instruct", rows)),
        }


def build(up: stack.Stack, recipe: str, rows: int | None) -> Built:
    """A committed recipe's build."""
    spec = spec_of(recipe, None)
    if rows is not None and spec["method"]["kind"] == "self_instruct":
        spec["method"] |= {"rounds": 2, "rows_per_round": rows}
    elif rows is not None:
        spec["limit"] = 2 * rows
    with ledger_kept(up.data_dir) as kept:
        job, found = built_by(up, spec)
    entries = [read_entries(chunk) for chunk in sorted((kept / job).iterdir())]
    calls = {row: [entry.call for entry in each] for one in entries for row, each in one.items()}
    return Built(found, calls)


@contextmanager
def ledger_kept(data_dir: Path) -> Iterator[Path]:
    """Where every segment that is written meanwhile can still be read after its build, which
    removes its own."""
    written, kept = data_dir / "artifacts" / "ledger", data_dir / "kept"
    over = threading.Event()

    def keep() -> None:
        while not over.wait(LOOK_S):
            for segment in written.glob("*/*/*/[0-9]*"):
                copy = kept / segment.relative_to(written)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileExistsError, FileNotFoundError):
                    copy.hardlink_to(segment)

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield kept
    finally:
        over.set()
        keeper.join()


def written(found: Built) -> dict[str, float]:
    """What became of a self-instruct build's proposals."""
    proposed = [
        call.text.strip()
        for calls in found.calls.values()
        for call in calls
        if call.step == WRITE_STEP
    ]
    kinds = Counter(kind_of(row) for row in found.accepted)
    return {
        "rounds": len({json.loads(row.seed)["round"] for row in found.rows}),
        "proposed": len(proposed),
        "proposed_valid": sum(map(is_possible, proposed)),
        **ends(found),
        **{kind: kinds[kind] for kind in ("orders", "orders_with_input", "classifications")},
    }


def kind_of(row: Record) -> str:
    """Which sort of task a row's prompt is."""
    instruction, _, given = row.prompt[-1].content.partition("\n\n")
    if isinstance(read_task(instruction), Pick):
        return "classifications"
    return "orders_with_input" if given else "orders"


def evolved(found: Built) -> dict[str, float]:
    """What became of an evol-instruct build's rewritings."""
    seeds = {json.loads(row.seed)["id"]: json.loads(row.seed)["instruction"] for row in found.rows}
    steps = Counter[str]()
    for row, calls in found.calls.items():
        steps.update(rewritings(seeds[row], calls))
    names = (
        "proposed",
        "proposed_valid",
        "eliminated_by_text",
        "equal",
        "equal_rightly",
        "survived",
    )
    return {
        "rounds": max(1 + (c.step - WRITING) // 2 for calls in found.calls.values() for c in calls),
        **{name: steps[name] for name in names},
        **ends(found),
        **gained(found, seeds),
    }


def rewritings(instruction: str, calls: list[Call]) -> Iterable[str]:
    """What happened to a row's rewritings, one word each time."""
    by_step = {call.step: call for call in calls}
    for step in sorted(step for step in by_step if step >= WRITING and not (step - WRITING) % 2):
        candidate = by_step[step].text.strip()
        yield "proposed"
        if is_possible(candidate):
            yield "proposed_valid"
        asked = by_step.get(step + 1)
        if asked is None:
            yield "eliminated_by_text"
        elif asked.text.strip() == "Equal":
            yield "equal"
            if said_rightly(instruction, candidate):
                yield "equal_rightly"
        else:
            yield "survived"
            instruction = candidate


def said_rightly(first: str, second: str) -> bool:
    """Whether nothing was gained, by the rule that the instructor was taught."""
    one, other = read_task(first), read_task(second)
    if not (isinstance(one, Order) and isinstance(other, Order)):
        return True
    return verdict(one, other) == "Equal"


def gained(found: Built, seeds: dict[str, str]) -> dict[str, float]:
    """Mean steps and words of the accepted rows' instructions, before and after."""
    before = [seeds[json.loads(row.seed)["id"]] for row in found.accepted]
    after = [row.prompt[-1].content for row in found.accepted]
    means = {}
    for when, texts in (("before", before), ("after", after)):
        orders = [task for task in map(read_task, texts) if isinstance(task, Order)]
        means[f"steps_{when}"] = statistics.mean(len(order.names) for order in orders)
        means[f"words_{when}"] = statistics.mean(len(order.words) for order in orders)
    return means


def ends(found: Built) -> dict[str, float]:
    """How the rows ended: rejected by reason, accepted, and of those how many are right."""
    reasons = Counter(row.reason for row in found.rows if not isinstance(row, Record))
    asked = [row.prompt[-1].content for row in found.accepted]
    valid = [answer_to(prompt) for prompt in asked]
    right = [
        wanted is not None and row.completion[-1].content.strip() == wanted
        for row, wanted in zip(found.accepted, valid, strict=True)
    ]
    return {
        **{str(reason): count for reason, count in sorted(reasons.items(), key=str)},
        "accepted": len(found.accepted),
        "valid": sum(one is not None for one in valid),
        "right": sum(right),
    }
