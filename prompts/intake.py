"""Whether a build can be asked at all: seeds, pool and teacher, looked at before it costs."""

from collections.abc import Iterable, Iterator

from prompts.checks.judge import judge_prompt
from prompts.checks.language import known_languages
from prompts.checks.spec import JsonSchemaCheck, JudgeCheck, LanguageCheck, LengthCheck
from prompts.demonstrations import LABEL, label_field, make_pool
from prompts.fields import FieldError
from prompts.likeness.near import NearIndex
from prompts.plan import scored_record
from prompts.record import Message, Seed
from prompts.seeds import SeedError, is_empty, scan_seeds
from prompts.spec import (
    AskedBuild,
    BuildSpec,
    CotBuild,
    IclBuild,
    InstructionBuild,
    RescoreBuild,
    Shots,
)
from prompts.spec.methods import Magpie, Respond, SelfInstruct
from prompts.template import TemplateError, compile_template
from prompts.tools import ToolsError, tools_of
from prompts.turns import TurnsError, earlier_turns
from prompts.verify import GoldError, gold_text
from prompts.verify.verifier import ALLOW

LARGEST_POOL = 1_000_000
"""A pool is held in memory, unlike seeds."""


class SpecError(FieldError):
    """A part of the spec that can't work; `field` is its path within the build."""


class PoolError(SeedError):
    """What is wrong with the pool of demonstrations, be it a file of its own or the seeds."""


def required_seed_fields(spec: AskedBuild) -> frozenset[str]:
    """The fields that every seed of this build must have."""
    fields = compile_template(spec.template, demonstrations=isinstance(spec, Shots)).required
    if spec.system is not None:
        fields |= compile_template(spec.system).required
    if isinstance(spec, CotBuild) and spec.rationalise is not None:
        fields |= compile_template(spec.rationalise.hint).required - {"gold"}
    if isinstance(spec, IclBuild) and spec.verify.kind != "none":
        fields |= {LABEL}
    if isinstance(spec, Shots) and spec.group_by:
        fields |= {spec.group_by}
    return fields - {"id"}


def read_seeds(spec: BuildSpec, lines: Iterable[bytes]) -> Iterator[tuple[int, Seed]]:
    """Like `scan_seeds`, with everything that this build needs of a seed checked; streams.

    Raises SeedError also for a gold answer that nothing could equal and for a seed with which a
    template can't be rendered; for a rescore build, for one that holds no row of a dataset.
    """
    if isinstance(spec, RescoreBuild):
        yield from _scored_seeds(lines)
        return
    templates = [compile_template(spec.template, demonstrations=isinstance(spec, Shots))]
    if spec.system is not None:
        templates.append(compile_template(spec.system))
    if isinstance(spec, CotBuild) and spec.rationalise is not None:
        templates.append(compile_template(spec.rationalise.hint))
    for line, seed in scan_seeds(lines, required_seed_fields(spec)):
        try:
            for template in templates:
                template.render({"gold": "", **seed})
            earlier_turns(seed, spec.turns)
            if isinstance(spec, InstructionBuild):
                tools_of(seed, spec.tools)
            _check_gold(spec, seed)
        except (TemplateError, TurnsError, ToolsError, GoldError) as error:
            raise SeedError(line, str(error)) from error
        yield line, seed


def _scored_seeds(lines: Iterable[bytes]) -> Iterator[tuple[int, Seed]]:
    for line, seed in scan_seeds(lines):
        try:
            scored_record(seed)
        except ValueError as error:
            raise SeedError(line, str(error)) from error
        yield line, seed


def read_pool(spec: IclBuild | CotBuild, lines: Iterable[bytes]) -> tuple[Seed, ...]:
    """The pool of a build with demonstrations, for `make_plan`: from its pool file, or from its
    seeds if it names none.

    Raises SeedError for a line that can't be a demonstration; for seeds, those without a label
    (`output`; the gold field of a chain of thought) are passed over.
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
    spec: BuildSpec, seeds: Iterable[bytes], pool: Iterable[bytes] | None = None
) -> int:
    """Reads all seeds, and the pool if the build needs one; returns how many seeds there are.

    `pool`: the lines of the pool file, or a second reading of the seeds file if the spec names no
    pool. Raises SeedError, of the pool a PoolError, and SpecError.
    """
    check_checks(spec)
    check_likeness(spec)
    _check_template(spec)
    count = sum(1 for _ in _first_judged(spec, read_seeds(spec, seeds)))
    if isinstance(spec, Shots) and spec.demonstrations:
        if pool is None:
            raise ValueError("a build with demonstrations needs a pool")
        try:
            read_pool(spec, pool)
        except SeedError as error:
            raise PoolError(error.line, error.problem) from error
    _check_target(spec, count)
    return count


def check_checks(spec: BuildSpec) -> None:
    """Raises SpecError for a check that no row could pass."""
    structured = 0
    for place, check in enumerate(spec.checks):
        if isinstance(check, LanguageCheck):
            unknown = sorted(set(check.languages) - known_languages())
            if unknown:
                listed = ", ".join(sorted(known_languages()))
                problem = f"unknown: {', '.join(unknown)}; known are {listed}"
                raise SpecError(f"checks.{place}.languages", problem)
        if isinstance(check, LengthCheck) and (check.min_tokens or 0) > spec.sampling.max_tokens:
            raise SpecError(
                f"checks.{place}.min_tokens",
                f"{check.min_tokens} is above sampling.max_tokens {spec.sampling.max_tokens}:"
                " no row could pass",
            )
        structured += isinstance(check, JsonSchemaCheck) and check.structured
        if structured > 1:
            problem = "a server keeps to one schema; say structured of one check only"
            raise SpecError(f"checks.{place}.structured", problem)


def check_likeness(spec: BuildSpec) -> None:
    """Raises SpecError for a limit of near-duplicates that no index can be made for: it would be
    made when every row is paid for."""
    near = spec.near_duplicates
    if near is None:
        return
    try:
        NearIndex(near.jaccard, near.permutations, near.shingle_words)
    except ValueError as error:
        problem = (
            f"{near.jaccard:g} is too near to 1 for {near.permutations} permutations ({error}):"
            " lower it, or ask for more permutations"
        )
        raise SpecError("near_duplicates.jaccard", problem) from error


def _check_template(spec: BuildSpec) -> None:
    """Raises SpecError for a prompt that is the same for every seed."""
    if isinstance(spec, RescoreBuild) or spec.turns is not None:
        return
    shots = isinstance(spec, Shots)
    sources = [spec.template, *([spec.system] if spec.system is not None else [])]
    templates = [compile_template(source, demonstrations=shots) for source in sources]
    if not any(template.fields or template.shows_demonstrations for template in templates):
        raise SpecError("template", "shows no field of the seeds: all would be asked the same")


def _check_target(spec: BuildSpec, seeds: int) -> None:
    """Raises SpecError for more rows than there are seeds, where rows come of seeds alone."""
    method = spec.method if isinstance(spec, InstructionBuild) else None
    if isinstance(method, SelfInstruct | Magpie) or spec.incremental:
        return
    if (spec.target_rows or 0) > seeds:
        problem = f"{spec.target_rows} rows can't come of {seeds} seeds: ask for fewer, or for all"
        raise SpecError("target_rows", problem)


def check_python(spec: BuildSpec, allowed: bool) -> None:
    """Raises SpecError for a verifier that is a Python function where those aren't allowed."""
    if isinstance(spec, IclBuild | CotBuild) and spec.verify.kind == "python" and not allowed:
        raise SpecError("verify", f"python is not allowed on this server; {ALLOW}=true allows it")


def limit_faults(
    spec: BuildSpec, teacher: str, context_tokens: int | None
) -> Iterator[tuple[str, str]]:
    """Field and problem of whatever is asked of this teacher in one reply and is more than its
    context holds; whoever doesn't say how much that is has none."""
    if context_tokens is None or isinstance(spec, RescoreBuild):
        return  # A rescore build writes nothing: rows that are too long are rejected one by one.
    for field, max_tokens in _longest_replies(spec, teacher):
        if max_tokens >= context_tokens:
            problem = (
                f"{max_tokens}, and the context of teacher {teacher!r} holds {context_tokens}"
                " tokens: no prompt would fit; ask for fewer"
            )
            yield field, problem


def _longest_replies(spec: AskedBuild, teacher: str) -> Iterator[tuple[str, int]]:
    writes = teacher in ([share.name for share in spec.teachers] or [spec.teacher])
    if writes:
        yield "sampling.max_tokens", spec.sampling.max_tokens
        if isinstance(spec, InstructionBuild) and not isinstance(spec.method, Respond):
            yield "method.sampling.max_tokens", spec.method.sampling.max_tokens
    for place, check in enumerate(spec.checks):
        if isinstance(check, JudgeCheck):
            judges = writes if check.teacher is None else check.teacher == teacher
            if judges:
                yield f"checks.{place}.max_tokens", check.max_tokens


def _first_judged(spec: BuildSpec, seeds: Iterator[tuple[int, Seed]]) -> Iterator[tuple[int, Seed]]:
    """Passes the seeds on; with the first one it tries the judges' templates."""
    for number, (line, seed) in enumerate(seeds):
        if number == 0:
            _check_judges(spec, seed)
        yield line, seed


def _check_judges(spec: BuildSpec, seed: Seed) -> None:
    prompt = (Message(role="user", content="a request"),)
    for place, check in enumerate(spec.checks):
        if isinstance(check, JudgeCheck):
            try:
                judge_prompt(check, seed, prompt, "an answer", None, None)
            except TemplateError as error:
                raise SpecError(f"checks.{place}.template", str(error)) from error


def _check_gold(spec: BuildSpec, seed: Seed) -> None:
    if not isinstance(spec, IclBuild | CotBuild) or spec.verify.kind == "none":
        return
    field = label_field(spec)
    if seed.get(field) is not None:
        try:
            gold_text(spec.verify, seed[field])
        except GoldError as error:
            raise GoldError(f"field {field!r}: {error}") from error


def _labelled(spec: IclBuild | CotBuild, lines: Iterable[bytes]) -> Iterator[tuple[int, Seed]]:
    if spec.pool is not None:
        yield from scan_seeds(lines, _pool_fields(spec))
        return
    for line, seed in read_seeds(spec, lines):
        if not is_empty(seed.get(label_field(spec))):
            yield line, seed


def _pool_fields(spec: IclBuild | CotBuild) -> frozenset[str]:
    # The query's fields too: the split, which keeps test rows out, goes by them.
    template = compile_template(spec.template, demonstrations=True)
    group = {spec.group_by} if spec.group_by else frozenset()
    return (template.required | template.demonstration_fields | {label_field(spec)} | group) - {
        "id"
    }


def _check_demonstration(spec: IclBuild | CotBuild, line: int, seed: Seed) -> None:
    template = compile_template(spec.template, demonstrations=True)
    for name in sorted(template.demonstration_fields):
        if name not in seed:
            problem = f"has no field {name!r}, which the template shows of a demonstration"
            raise SeedError(line, f"{problem}; the fields it has: {', '.join(seed)}")
    try:
        template.render(seed, (seed,))
    except TemplateError as error:
        raise SeedError(line, f"as a demonstration: {error}") from error


def _check_pool_size(spec: IclBuild | CotBuild, pool: list[Seed]) -> None:
    usable = len(make_pool(spec, pool).entries)
    if usable < spec.demonstrations:
        raise SeedError(
            None,
            f"{usable} of {len(pool)} labelled lines are in the train split, and the spec asks"
            f" for {spec.demonstrations} demonstrations: give more lines with an"
            f" {label_field(spec)!r}",
        )
