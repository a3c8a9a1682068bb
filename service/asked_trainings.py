"""Trainings whose teacher or rows are not there yet, or elsewhere: what would make them fail."""

from collections.abc import Iterator

from prompts.spec import BuildSpec, IclBuild
from service.spec import RecipeJob
from service.tables import Teacher
from trainer.spec import ServedKL, StageSpec

RATIONALES = ("step_by_step", "rationale_then_answer")
DEMONSTRATIONS = ("meta_ict", "multitask_ict")


def served_faults(teacher: Teacher, spec: ServedKL) -> Iterator[tuple[str, str]]:
    """Field and problem."""
    if teacher.api_key_sealed is not None:
        yield (
            "train.teacher",
            f"the key of {teacher.name!r} is stored sealed, and a training reads it from a "
            "variable: register the teacher with api_key_env",
        )
    most = teacher.probe.get("max_logprobs")
    if most is not None and spec.top_k > most:
        yield "train.top_k", f"{teacher.name!r} gives {most} log-probs a token at most"


def built_faults(recipe: RecipeJob) -> Iterator[tuple[str, str]]:
    """Field and problem of what can't learn from the rows that the recipe's own build will give."""
    build, train, compress = recipe.build, recipe.train, recipe.compress
    if build is None:
        return
    methods: dict[str, str] = {}
    if train is not None and train.dataset is None:
        methods["train.method"] = train.method
    if compress is not None and compress.dataset is None:
        for number, stage in enumerate(compress.stages):
            for field, method in _trainings(stage):
                methods[f"compress.stages.{number}.{field}.method"] = method
    for place, method in methods.items():
        if (problem := _unlearnable(build, method)) is not None:
            yield place, problem


def _trainings(stage: StageSpec) -> Iterator[tuple[str, str]]:
    """Field and method of a stage's own trainings that name one."""
    if stage.heal is not None and stage.heal.method is not None:
        yield "heal", stage.heal.method
    if stage.kind in ("qat", "qaf") and stage.training.method is not None:
        yield "training", stage.training.method


def _unlearnable(build: BuildSpec, method: str) -> str | None:
    """Why no row of such a build is of use to a method; None if rows may be."""
    if method == "stored_kl" and build.signal is None:
        return "stored_kl learns from a stored signal, and the build records none: add build.signal"
    if method in RATIONALES and build.kind in ("icl", "if"):
        return f"{method} needs chain-of-thought rows, and the build's are of kind {build.kind}"
    if method in DEMONSTRATIONS and build.kind in ("cot", "if"):
        return f"{method} needs in-context rows, and the build's are of kind {build.kind}"
    if method in DEMONSTRATIONS and isinstance(build, IclBuild) and not build.demonstrations:
        return f"{method} needs demonstrations in the prompts, and build.demonstrations is 0"
    return None
