"""Self-instruct builds in this process, against a fake teacher that writes."""

import json
import re
import threading
from random import Random
from zlib import crc32

import pytest

from prompts.dataset import read_manifest
from prompts.instructions import task_of
from prompts.likeness import rouge_l
from prompts.record import Record
from prompts.spec import InstructionBuild
from service import jobs
from service.site import Site
from service.spec import BuildJob
from service.tables import State
from tests.workers.conftest import dataset_of, get_job, register, rows_of, run_build, upload
from tests.workers.writing_teacher import WritingTeacher, writing_teacher

pytestmark = pytest.mark.slow

TASKS = [
    {"instruction": "Name three rivers of Asia."},
    {"instruction": "Sort these words by length."},
    {"instruction": "Explain why the sky is blue."},
]
WORDS = [
    "apple",
    "bear",
    "cloud",
    "drum",
    "eagle",
    "flute",
    "grape",
    "house",
    "iris",
    "jar",
    "kite",
    "lamp",
    "moon",
    "nest",
    "oak",
]


def say(prompt: str) -> str:
    """Writes a task that depends on the examples; every fourth one is like a seed task."""
    if "Write one more task" in prompt:
        number = crc32(prompt.encode())
        if number % 4 == 0:
            return "Name three rivers of Europe."
        return f"Write about {' '.join(Random(number).sample(WORDS, 6))}."
    if "(a classification task)?" in prompt:
        return "No"
    return "<none>" if prompt.endswith("Input:") else f"Well: {prompt}"


def start(site: Site, url: str, **method: int) -> str:
    register(site, url)
    rounds = {"kind": "self_instruct", "rounds": 3, "rows_per_round": 20} | method
    spec = InstructionBuild.model_validate(
        {
            "kind": "if",
            "teacher": "stub",
            "seeds": upload(site, TASKS),
            "chunk_rows": 8,
            "method": rounds | {"shown_seeds": 2, "shown_written": 2},
        }
    )
    return jobs.submit(site, BuildJob(kind="build", build=spec)).id


def test_later_rounds_are_shown_what_earlier_ones_wrote(site: Site) -> None:
    with writing_teacher(say) as teacher:
        job_id = start(site, teacher.url)
        run_build(site, job_id)
        prompts = writing_prompts(teacher)
    job = get_job(site, job_id)
    assert (job.state, job.detail) == (State.SUCCEEDED, None)
    assert len(prompts) == 60
    assert not any("Write about" in shown(prompt) for prompt in prompts[:20])
    assert all("Write about" in shown(prompt) for prompt in prompts[20:])
    check_novel(site, job_id, 60)


def test_several_workers_keep_the_rounds_apart_and_ask_nothing_twice(site: Site) -> None:
    with writing_teacher(say) as teacher:
        job_id = start(site, teacher.url)
        workers = [threading.Thread(target=run_build, args=(site, job_id)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        run_build(site, job_id)
        prompts = writing_prompts(teacher)
    assert get_job(site, job_id).state == State.SUCCEEDED
    assert len(prompts) == 60
    check_novel(site, job_id, 60)


@pytest.mark.parametrize("chunk_rows", [8])
def test_the_same_seeds_give_the_same_tasks(site: Site, chunk_rows: int) -> None:
    found = []
    for _ in range(2):
        with writing_teacher(say) as teacher:
            job_id = start(site, teacher.url)
            run_build(site, job_id)
        rows = [row for row in rows_of(dataset_of(site, job_id)) if isinstance(row, Record)]
        found.append({row.id: task_of(row) for row in rows})
    assert found[0] == found[1]


def writing_prompts(teacher: WritingTeacher) -> list[str]:
    return [prompt for prompt in teacher.prompts if "Write one more task" in prompt]


def shown(prompt: str) -> str:
    return "\n".join(re.findall(r"^\d+\. Instruction: (.+)$", prompt, re.M))


def check_novel(site: Site, job_id: str, rows: int) -> None:
    """Every row ended once; no accepted task is like a seed's or like another's."""
    dataset = dataset_of(site, job_id)
    ended = rows_of(dataset)
    assert (
        len({row.id for row in ended}) == len(ended) == rows == read_manifest(dataset).counts.seeds
    )
    tasks = [task_of(row) for row in ended if isinstance(row, Record)]
    assert len(tasks) > 5
    pool = [task["instruction"] for task in TASKS] + tasks
    for number, task in enumerate(tasks):
        others = pool[:3] + tasks[:number] + tasks[number + 1 :]
        assert max(rouge_l(task, other) for other in others) < 0.7
    rejected = [row for row in ended if not isinstance(row, Record)]
    assert {row.reason for row in rejected} - {"duplicate"} == {"not_novel"}
    assert all(row.resembles for row in rejected if row.reason == "not_novel")
    assert all(json.loads(row.seed) for row in rejected)
