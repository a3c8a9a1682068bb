"""Whether a build can be asked at all: seeds, pool and teacher, looked at before it costs."""

from collections.abc import Iterable, Iterator

from prompts.demonstrations import LABEL, make_pool
from prompts.record import Seed
from prompts.seeds import SeedError, is_empty, scan_seeds
from prompts.spec import CotBuild, IclBuild, InstructionBuild
from prompts.template import TemplateError, compile_template
from prompts.verify import GoldError, gold_answer

LARGEST_POOL = 1_000_000
"""A pool is held in memory, unlike seeds."""


class TeacherLimitError(ValueError):
    """The spec asks for what this teacher can't give."""


def required_seed_fields(spec: IclBuild | CotBuild | InstructionBuild) -> frozenset[str]:
    """The fields that every seed of this build must have."""
    icl = isinstance(spec, IclBuild)
    fields = compile_template(spec.template, demonstrations=icl).required
    if spec.system is not None:
        fields |= compile_template(spec.system).required
    if isinstance(spec, IclBuild):
        fields |= {LABEL} if spec.verify else frozenset()
        fields |= {spec.group_by} if spec.group_by else frozenset()
    return fields - {"id"}


def read_seeds(
    spec: IclBuild | CotBuild | InstructionBuild, lines: Iterable[bytes]
) -> Iterator[tuple[int, Seed]]:
    """Like `scan_seeds`, with everything that this build needs of a seed checked; streams.

    Raises SeedError also for a gold answer without a number and for a seed with which the
    template can't be rendered.
    """
    template = compile_template(spec.template, demonstrations=isinstance(spec, IclBuild))
    system = None if spec.system is None else compile_template(spec.system)
    for line, seed in scan_seeds(lines, required_seed_fields(spec)):
        try:
            template.render(seed)
            if system is not None:
                system.render(seed)
            _check_gold(spec, seed)
        except (TemplateError, GoldError) as error:
            raise SeedError(line, str(error)) from error
        yield line, seed


def read_pool(spec: IclBuild, lines: Iterable[bytes]) -> tuple[Seed, ...]:
    """The pool of an ICL build, for `make_plan`: from its pool file, or from its seeds if it
    names none.

    Raises SeedError for a line that can't be a demonstration; for seeds, those without an
    `output` are passed over.
    """
    pool: list[Seed] = []
    for line, seed in _labelled(spec, lines):
        _check_demonstration(spec, line, seed)
        pool.append(seed)
        if len(pool) > LARGEST_POOL:
            problem = f"more than {LARGEST_POOL:,} demonstrations; name a smaller file as `pool`"
            raise SeedError(line, problem)
    _check_pool_size(spec, pool)
    return tuple(pool)


def check_build(
    spec: IclBuild | CotBuild | InstructionBuild,
    seeds: Iterable[bytes],
    pool: Iterable[bytes] | None = None,
) -> int:
    """Reads all seeds, and the pool if an ICL build needs one; returns how many seeds there are.

    `pool`: the lines of the pool file, or a second reading of the seeds file if the spec names no
    pool. Raises SeedError, whose message says which of the files is meant.
    """
    count = sum(1 for _ in read_seeds(spec, seeds))
    if isinstance(spec, IclBuild) and spec.demonstrations:
        if pool is None:
            raise ValueError("an ICL build with demonstrations needs a pool")
        try:
            read_pool(spec, pool)
        except SeedError as error:
            raise SeedError(error.line, f"(pool) {error.problem}") from error
    return count


def check_teacher(
    spec: IclBuild | CotBuild | InstructionBuild,
    context_tokens: int | None,
    max_logprobs: int | None,
) -> None:
    """Raises TeacherLimitError if the sampling asks for more than the teacher allows."""
    sampling = spec.sampling
    if context_tokens is not None and sampling.max_tokens >= context_tokens:
        raise TeacherLimitError(
            f"sampling.max_tokens is {sampling.max_tokens}, the context of teacher"
            f" {spec.teacher!r} holds {context_tokens} tokens: no prompt would fit; ask for fewer"
        )
    if max_logprobs is not None and (sampling.logprobs or 0) > max_logprobs:
        raise TeacherLimitError(
            f"sampling.logprobs is {sampling.logprobs}, teacher {spec.teacher!r} allows"
            f" {max_logprobs}; ask for fewer, or serve it with a larger --max-logprobs"
        )


def _check_gold(spec: IclBuild | CotBuild | InstructionBuild, seed: Seed) -> None:
    if not isinstance(spec, CotBuild) or spec.verify != "numeric":
        return
    if seed.get(spec.gold_field) is not None:
        try:
            gold_answer(seed[spec.gold_field])
        except GoldError as error:
            raise GoldError(f"field {spec.gold_field!r}: {error}") from error


def _labelled(spec: IclBuild, lines: Iterable[bytes]) -> Iterator[tuple[int, Seed]]:
    if spec.pool is not None:
        yield from scan_seeds(lines, _pool_fields(spec))
        return
    for line, seed in read_seeds(spec, lines):
        if not is_empty(seed.get(LABEL)):
            yield line, seed


def _pool_fields(spec: IclBuild) -> frozenset[str]:
    # The query's fields too: the split, which keeps test rows out, goes by them.
    template = compile_template(spec.template, demonstrations=True)
    group = {spec.group_by} if spec.group_by else frozenset()
    return (template.required | template.demonstration_fields | {LABEL} | group) - {"id"}


def _check_demonstration(spec: IclBuild, line: int, seed: Seed) -> None:
    template = compile_template(spec.template, demonstrations=True)
    for name in sorted(template.demonstration_fields):
        if name not in seed:
            problem = f"has no field {name!r}, which the template shows of a demonstration"
            raise SeedError(line, f"{problem}; the fields it has: {', '.join(seed)}")
    try:
        template.render(seed, (seed,))
    except TemplateError as error:
        raise SeedError(line, f"as a demonstration: {error}") from error


def _check_pool_size(spec: IclBuild, pool: list[Seed]) -> None:
    usable = len(make_pool(spec, pool).entries)
    if usable < spec.demonstrations:
        raise SeedError(
            None,
            f"{usable} of {len(pool)} labelled lines are in the train split, and the spec asks"
            f" for {spec.demonstrations} demonstrations: give more lines with an {LABEL!r}",
        )
