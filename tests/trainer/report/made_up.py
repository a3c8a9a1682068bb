"""A chain that nobody ran: made-up figures, labelled so, in the shape of a real one."""

from datetime import UTC, datetime, timedelta
from typing import Any

from trainer.measurement import Measurement, wilson
from trainer.report.chain import (
    Artifact,
    Chain,
    DatasetFacts,
    Machine,
    ModelRow,
    Part,
    Recipe,
    SampledRow,
    Samples,
    Step,
    Training,
    Validation,
)

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def measured(cot: int, icl: int, others: int, parameters: int, size: int, speed: float) -> Any:
    """A measurement over 200 rows of each of three skills."""
    return Measurement(
        model="made-up",
        skills={"cot": wilson(cot, 200), "icl": wilson(icl, 200), "if": wilson(others, 200)},
        parameters=parameters,
        weight_bytes=size,
        generated_tokens=20_000,
        seconds=20_000 / speed,
        tokens_per_s=speed,
        prefill_tokens_per_s=9 * speed,
        decode_tokens_per_s=1.1 * speed,
        peak_memory_bytes=100 * size,
    )


def stage(index: int, kind: str, after: Measurement, **changed: Any) -> dict[str, Any]:
    """A stage report around a measurement."""
    shape = {
        "parameters": after.parameters,
        "nonzero": after.parameters // (2 if kind == "wanda" else 1),
        "weight_bytes": after.weight_bytes,
        "layers": 3,
    }
    facts = {"path": "made-up", "shape": shape, "measurement": after, "kl_from_start": 0.021}
    return {
        "index": index,
        "kind": kind,
        "digest": "0" * 64,
        "passed": True,
        "spec": {"kind": kind, "on": "start", "calibration_rows": 128},
        "source": "made-up",
        "model": "made-up",
        "before": facts,
        "after": facts,
        "kl_from_source": 0.021,
        "kl_tokens": 4_200,
        "kl_split": "validation",
        "details": {"ranks": {"q_proj": 28, "down_proj": 51}, "sparsity": 0.5},
        "notes": ("Zeros are stored as numbers: a mask alone shrinks nothing.",),
        "calibration_rows": 128,
        "seconds": 12.5,
        "measuring_seconds": 31.0,
        **changed,
    }


SERVING = {
    "passed": True,
    "prompts": 200,
    "tokens": 9_000,
    "dtype": "float32",
    "mean_logprob_difference": 0.0123,
    "limit": 0.05,
    "equal_completions": 0.93,
    "equal_tokens": 0.981,
    "vllm_tokens_per_s": 1450.0,
    "ready_s": 41.0,
    "vllm_version": "0.0.0",
}
UNSERVED = "masked-dense weights load as the student does: not compared"


def models() -> tuple[ModelRow, ...]:
    """Teacher, base, student, and four stages of which one met no gate."""
    wanda = measured(108, 50, 60, 1_210_000, 4_840_000, 930.0)
    depth = measured(21, 30, 31, 950_000, 3_800_000, 1180.0)
    svd = measured(112, 49, 62, 900_000, 3_610_000, 1010.0)
    ptq = measured(117, 52, 66, 1_210_000, 1_620_000, 640.0)
    rows: list[dict[str, Any]] = [
        {"label": "teacher", "role": "teacher", "measurement": measured(190, 168, 161, 4_812_345, 9_630_000, 410.0)},  # noqa: E501
        {"label": "student base", "role": "base", "measurement": measured(17, 44, 40, 1_210_000, 4_840_000, 905.0)},  # noqa: E501
        {"label": "student", "role": "student", "source": "base", "measurement": measured(121, 52, 65, 1_210_000, 4_840_000, 912.0), "seconds": 181.0, "teacher_tokens": 171_400},  # noqa: E501
        {"label": "wanda", "source": "student", "stage": stage(0, "wanda", wanda, serving_note=UNSERVED)},  # noqa: E501
        {"label": "depth", "source": "student", "stage": stage(1, "depth", depth, passed=False, failures=("mean accuracy fell by 0.26, more than 0.10",), serving_note="stopped by its gate", heal={"method": "forward_kl", "steps": 40, "seconds": 20.0, "kl_before": 0.81, "kl_after": 0.24})},  # noqa: E501
        {"label": "svd", "source": "student", "stage": stage(2, "svd", svd, serving=SERVING)},
        {"label": "svd + ptq", "source": "svd", "stage": stage(3, "ptq", ptq, serving=SERVING)},
    ]  # fmt: skip
    names = ("teacher", "base", "student", "wanda", "depth", "svd", "ptq")
    return tuple(
        ModelRow.model_validate({"id": name, "role": "stage", **row})
        for name, row in zip(names, rows, strict=True)
    )


def parts() -> tuple[Part, ...]:
    """Five parts, one after the other."""
    found, begin = [], START
    for kind, seconds in (
        ("serve", 44),
        ("build", 96),
        ("train", 181),
        ("compress", 233),
        ("report", 9),
    ):
        end = begin + timedelta(seconds=seconds)
        found.append(
            Part(
                id=f"job_{kind}",
                kind=kind,
                state="succeeded",
                started_at=begin,
                finished_at=end,
            )
        )
        begin = end + timedelta(seconds=2)
    return tuple(found)


def lineage() -> tuple[Artifact, ...]:
    """Files, models and what they were made from."""
    made = (
        ("seeds", "file", "story seeds", ()),
        ("evaluation", "file", "held-out rows", ()),
        ("teacher", "model", "demo-teacher", ()),
        ("base", "model", "demo-student", ()),
        ("dataset", "dataset", "stories", ("seeds", "teacher")),
        ("student", "model", "stories-student", ("dataset", "base")),
        ("wanda", "model", "wanda", ("student", "dataset", "evaluation")),
        ("depth", "model", "depth", ("student", "dataset", "evaluation")),
        ("svd", "model", "svd", ("student", "dataset", "evaluation")),
        ("ptq", "model", "ptq", ("svd", "dataset", "evaluation")),
    )
    return tuple(
        Artifact(id=id_, kind=kind, name=name, version=1, bytes=4_840_000, inputs=inputs)
        for id_, kind, name, inputs in made
    )


def training() -> Training:
    """A loss that falls as losses do, with a ripple and no randomness."""
    steps = tuple(
        Step(
            step=step,
            loss=0.25 + 2.2 / (1 + step / 40) + 0.06 * ((step * 7919) % 13 - 6) / 6,
            learning_rate=1e-3 * (1 - step / 900),
            tokens_per_s=5200.0 + (step * 31) % 300,
        )
        for step in range(1, 801)
    )
    validation = tuple(
        Validation(step=step, loss=0.31 + 2.1 / (1 + step / 42)) for step in range(100, 801, 100)
    )
    return Training(
        method="rationale_then_answer",
        rows=1_071,
        left_out=3,
        cut=12,
        unsuited=0,
        seed=0,
        threads=2,
        steps=steps,
        validation=validation,
        samples=tuple(
            Samples(step=step, rows=(sampled(said, ended),))
            for step, said, ended in (
                (100, "The The The", False),
                (400, "5", True),
                (800, "", True),
            )
        ),
    )


def sampled(said: str, ended: bool) -> SampledRow:
    """A held-out row as the student answered it."""
    prompt = "Ann has 3 apples and buys 4. How many?"
    return SampledRow(id="v1", prompt=prompt, reference="7", student=said, ended=ended)


def made_up_chain(**changed: Any) -> Chain:
    """The whole of it, with fields replaced."""
    dataset = DatasetFacts(
        id="dataset",
        name="stories",
        version=1,
        kind="cot",
        accepted=1_132,
        rejected={"wrong_answer": 51, "truncated": 9, "no_answer": 5, "duplicate": 3},
        splits={"train": 1_074, "validation": 31, "test": 27},
        prompt_tokens=61_000,
        completion_tokens=110_400,
        requests=1_200,
        teacher="demo-teacher",
        teacher_revision="sha256:" + "a" * 12,
        teacher_seconds=88.0,
    )
    chain = Chain(
        id="job_recipe",
        recipe=Recipe(name="demo", text="kind: recipe\nname: demo\n", spec={"kind": "recipe"}),
        fixture=True,
        distilled=("cot",),
        parts=parts(),
        dataset=dataset,
        training=training(),
        models=models(),
        lineage=lineage(),
        machine=Machine(cpu="a made-up CPU", cores=2, memory_bytes=24 * 10**9, system="Linux"),
        versions={"retort-distill": "0.1.0", "torch": "0.0.0", "python": "3.11"},
    )
    return chain.model_copy(update=changed)
