"""A plan from a spec and what it needs: pool, facts, evaluation sets."""

from collections.abc import Sequence

from prompts.demonstrations import Embed, Pool, make_pool
from prompts.overlap import EvaluationSet
from prompts.plan.plan import Plan
from prompts.plan.request import TeacherFacts
from prompts.record import Seed
from prompts.spec import AskedBuild, CotBuild, InstructionBuild, Shots
from prompts.template import compile_template
from prompts.verify import make_verifier
from prompts.verify.spec import NoVerifier


def make_plan(
    spec: AskedBuild,
    pool: Sequence[Seed] | None,
    teacher: TeacherFacts,
    evaluation: Sequence[EvaluationSet] = (),
    embed: Embed | None = None,
    allow_python: bool = False,
) -> Plan:
    """The plan of a build.

    `pool`: labelled seeds, for builds with demonstrations; see `prompts.intake.read_pool`.
    `evaluation`: sets of which nothing may be asked or shown. `embed`: texts to vectors, for
    selectors that go by embeddings. `allow_python`: verifiers may be functions of the user's.
    Raises ValueError if a build with demonstrations gets no pool, another one gets one, the teacher
    isn't the one that the spec names, embeddings or a tokenizer are needed and missing, or a
    verifier is not allowed or can't be loaded.
    """
    if teacher.name != spec.teacher:
        raise ValueError(f"the spec names the teacher {spec.teacher!r}, given is {teacher.name!r}")
    shots = isinstance(spec, Shots)
    verify = NoVerifier() if isinstance(spec, InstructionBuild) else spec.verify
    return Plan(
        spec=spec,
        teacher=teacher,
        template=compile_template(spec.template, demonstrations=shots),
        system=None if spec.system is None else compile_template(spec.system),
        pool=_pool(spec, pool, teacher, tuple(evaluation), embed),
        verifier=make_verifier(verify, allow_python),
        evaluation=tuple(evaluation),
    )


def _pool(
    spec: AskedBuild,
    pool: Sequence[Seed] | None,
    teacher: TeacherFacts,
    evaluation: tuple[EvaluationSet, ...],
    embed: Embed | None,
) -> Pool | None:
    if not isinstance(spec, Shots) or (isinstance(spec, CotBuild) and not spec.demonstrations):
        if pool is not None:
            raise ValueError(f"this build of kind {spec.kind!r} takes no pool")
        return None
    if pool is None and spec.demonstrations:
        raise ValueError("a build with demonstrations needs its pool")
    if spec.embedder is not None and embed is None:
        raise ValueError(f"selector {spec.selector.kind!r} needs embeddings")
    if spec.demonstration_tokens is not None and teacher.count_tokens is None:
        raise ValueError(
            f"demonstration_tokens needs the tokenizer of teacher {teacher.name!r} on this machine:"
            " register it with its `model`, or leave demonstration_tokens out"
        )
    return make_pool(spec, pool or (), evaluation, embed)
