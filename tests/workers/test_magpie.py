"""Magpie builds in this process, against a fake teacher that continues token ids."""

import json
from pathlib import Path
from random import Random

import pytest

from prompts.dataset import read_manifest
from prompts.instructions import task_of
from prompts.likeness import rouge_l
from prompts.record import Record
from prompts.spec import InstructionBuild
from service import jobs
from service.asking import TeacherError
from service.problems import Problem
from service.site import Site
from service.spec import BuildJob
from service.tables import State
from tests.conftest import ROOT
from tests.workers.conftest import dataset_of, get_job, register, rows_of, run_build
from tests.workers.test_rounds import WORDS
from tests.workers.writing_teacher import writing_teacher
from trainer.loading import load_tokenizer
from workers.tokens import user_opening

MODEL = ROOT / "examples" / "demo" / "models" / "teacher"
LLAMA = (
    "{{ '<|pad|>' }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def write(seed: int) -> str:
    """An instruction by the request's own seed; every fourth one is much like the others."""
    if seed % 4 == 0:
        return f"Please write some lines about the {WORDS[seed % 3]}."
    return f"Tell {' '.join(Random(seed).sample(WORDS, 6))}."


def submit(site: Site) -> str:
    spec = InstructionBuild.model_validate(
        {
            "kind": "if",
            "teacher": "stub",
            "chunk_rows": 8,
            "system": "Be kind.",
            "method": {
                "kind": "magpie",
                "rounds": 2,
                "rows_per_round": 20,
                "sampling": {"temperature": 1, "seed": 5, "stop": ["END"]},
            },
        }
    )
    return jobs.submit(site, BuildJob(kind="build", build=spec)).id


def test_rounds_without_any_seeds_become_a_dataset_of_novel_instructions(site: Site) -> None:
    with writing_teacher(lambda prompt: f"Well: {prompt}", write) as teacher:
        register(site, teacher.url, model=str(MODEL))
        job_id = submit(site)
        run_build(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.detail) == (State.SUCCEEDED, None)
    assert len(teacher.continued) == read_manifest(dataset_of(site, job_id)).counts.seeds == 40
    tokenizer = load_tokenizer(MODEL)
    for body in teacher.continued:
        shown = tokenizer.decode(body["prompt"])
        assert shown.replace(" ", "") == "<|system|>Bekind.<|end|><|user|>"
        assert (body["stop_token_ids"], body["stop"]) == ([4], ["END"])
    rows = rows_of(dataset_of(site, job_id))
    tasks = [task_of(row) for row in rows if isinstance(row, Record)]
    assert len(tasks) <= len(teacher.prompts) < 40
    for number, task in enumerate(tasks):
        assert max(rouge_l(task, other) for other in tasks[:number] or [""]) < 0.7
    rejected = [row for row in rows if not isinstance(row, Record)]
    assert {row.reason for row in rejected} - {"duplicate"} == {"not_novel"}
    # Those of the second round that resemble the first one's were not answered.
    late = [row for row in rejected if json.loads(row.seed)["round"] == 1]
    unanswered = [row for row in late if not row.raw[0].startswith("Well:")]
    assert len(unanswered) == 40 - len(teacher.prompts)


def test_a_teacher_whose_template_is_not_at_hand_is_refused_at_submit(site: Site) -> None:
    register(site, "http://127.0.0.1:1")
    with pytest.raises(Problem) as refused:
        submit(site)
    assert [fault.location for fault in refused.value.faults] == ["build.teacher"]


def test_the_opening_ends_where_the_words_begin() -> None:
    opening = user_opening("t", MODEL, None)
    assert (opening.text, opening.stop_ids, opening.stop) == ("<|user|>", (4,), ())


@pytest.mark.parametrize(
    ("template", "opening"),
    [(LLAMA, ("<|pad|>[INST]", (), ("[/INST]",))), ("{{ messages[0].content }}", ("", (), ()))],
)
def test_templates_of_other_shapes(
    tmp_path: Path, template: str, opening: tuple[str, tuple[int, ...], tuple[str, ...]]
) -> None:
    tokenizer = load_tokenizer(MODEL)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(tmp_path))
    found = user_opening("t", tmp_path, None)
    assert (found.text, found.stop_ids, found.stop) == opening


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("Nobody speaks.", "shows no user's words"),
        ("{{ raise_exception('no system here') }}", "refuses the turns: no system here"),
    ],
)
def test_a_template_without_a_user_is_an_error(tmp_path: Path, template: str, words: str) -> None:
    tokenizer = load_tokenizer(MODEL)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(TeacherError, match=words):
        user_opening("t", tmp_path, "Be kind.")
