"""What every build asks for, whatever its kind."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prompts.checks.judge import judges_of
from prompts.checks.spec import CheckSpec
from prompts.fields import FieldError
from prompts.limits import Budget, Smoke, TeacherShare
from prompts.record import Frozen
from prompts.spec.likeness import NearDuplicates, Novelty
from prompts.spec.sampling import Sampling, Split
from prompts.spec.signal import Signal
from prompts.spec.written import check_written
from prompts.template import TemplateSource

SeedSource = (
    Annotated[str, Field(min_length=1)]
    | Annotated[tuple[dict[str, Any], ...], Field(max_length=10_000)]
)


MOST_ROWS = 2**31 - 1
"""Of one build: more no database column of ours counts, and no source has."""


class Build(Frozen):
    version: Literal[1] = 1
    teacher: str = Field(min_length=1)
    """Name of a registered teacher. With `teachers` it may be left out: it is their first."""
    teachers: tuple[TeacherShare, ...] = ()
    """Several teachers for one build; every row says whose it is."""
    teachers_mode: Literal["weighted", "fallback"] = "weighted"
    """weighted: each row has its teacher, by its id and the weights. fallback: the first, and where
    that is away or refuses a row the next."""
    seeds: SeedSource
    """Where the rows come from: id or name of an uploaded file (JSON Lines, CSV or Parquet, by the
    ending of its name) or of a dataset (its accepted rows), a directory of `datasets` on the
    server, `hub:` and a name that the `datasets` library knows, or the rows themselves. `retort
    run` uploads a path and puts the id here."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Fields that a seed gets beside its own: name -> dotted path of the source's column."""
    incremental: bool | str = False
    """Ask only for seeds that the newest version of this dataset hasn't, and take its rows over;
    or the version to begin from, as `name@version` or its id."""
    name: str = Field("dataset", min_length=1, max_length=200, pattern=r"^[^@/\s][^@/\r\n]*$")
    """The dataset's name; each build of a name is a new version."""
    system: TemplateSource | None = None
    """A system message before every prompt; a template too."""
    turns: str | None = Field(None, min_length=1)
    """A seed's field with earlier turns of the conversation, a list of {role, content} that ends
    with the assistant's; the prompt is the user's next turn."""
    sampling: Sampling = Sampling()
    split: Split = Split()
    checks: tuple[CheckSpec, ...] = ()
    """What a completion must pass beside what its kind always asks of it; in this order, judges
    last."""
    limit: int | None = Field(None, ge=1, le=MOST_ROWS)
    """Ask for the first so many seeds only."""
    target_rows: int | None = Field(None, ge=1, le=MOST_ROWS)
    """Exactly so many accepted rows, the first in input order; the rest end as not_needed."""
    budget: Budget | None = None
    """What the build may spend."""
    smoke: Smoke | None = None
    """The first rows are asked alone; if too few are accepted the job pauses and shows them."""
    cache: bool = False
    """Take answers from the completion cache, which all builds that say so share, and put them
    there."""
    signal: Signal | None = None
    """What is kept of the teacher's distribution at each token, joined by row id."""
    decontaminate: str | None = None
    """Id of an uploaded evaluation set: rows that share a text or thirteen words in a row with it
    are rejected."""
    near_duplicates: NearDuplicates | None = None
    """Reject rows that are nearly an earlier row, of this dataset or of others."""
    novelty: Novelty | None = None
    """Reject rows whose words are too much an earlier row's."""
    deduplicate: bool = True
    """Reject a row whose prompt and completion equal an earlier row's."""
    max_in_flight: int = Field(64, ge=1, le=4096)
    """Requests under way at once, over all workers that drain this job."""
    chunk_rows: int = Field(256, ge=1, le=100_000)

    @model_validator(mode="before")
    @classmethod
    def _is_written(cls, given: Any) -> Any:
        check_written(given)
        return given

    @model_validator(mode="before")
    @classmethod
    def _first_teacher(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("teachers") and "teacher" not in given:
            first = given["teachers"][0] if isinstance(given["teachers"], list | tuple) else None
            name = first.get("name") if isinstance(first, dict) else first and first.name
            return given | {"teacher": name}
        return given

    @property
    def calls_a_row(self) -> int:
        """Requests that an accepted row takes, at least."""
        return 1 + len(judges_of(self.checks))

    @property
    def takes_seeds(self) -> bool:
        """Whether its rows come from anywhere but the teacher."""
        return True

    @model_validator(mode="after")
    def _has_rows(self) -> "Build":
        if self.takes_seeds and not self.seeds:
            raise FieldError("seeds", "no rows are given; name a file or a dataset, or write some")
        return self

    @model_validator(mode="after")
    def _ends_where_it_can(self) -> "Build":
        names = [teacher.name for teacher in self.teachers]
        if names and self.teacher != names[0]:
            raise FieldError(
                "teacher", f"it is {self.teacher!r}, the first of teachers {names[0]!r}"
            )
        if len(set(names)) < len(names):
            raise FieldError("teachers", "a name comes twice")
        if self.teachers_mode == "fallback" and len(names) < 2:
            raise FieldError("teachers_mode", "a fall-back needs two teachers or more")
        if self.limit is not None and (self.target_rows or 0) > self.limit:
            raise FieldError(
                "target_rows",
                f"target_rows of {self.target_rows} can't come of a limit of {self.limit} seeds",
            )
        asked, each = self.budget.requests if self.budget is not None else None, self.calls_a_row
        new = None if self.incremental else self.target_rows  # Rows taken over cost nothing.
        if asked is not None and (new or 1) * each > asked:
            rows = f"target_rows of {new}" if new else "a single row"
            raise FieldError(
                "budget.requests",
                f"{rows} can't come of budget.requests {asked}: a row takes {each} or more",
            )
        if self.incremental and self.signal is not None:
            raise FieldError(
                "signal", "an incremental build can't take over the earlier rows' signal"
            )
        if asked is not None and self.smoke is not None and self.smoke.rows * each > asked:
            raise FieldError(
                "smoke.rows",
                f"smoke.rows of {self.smoke.rows} exceed budget.requests {asked}: a row takes"
                f" {each} or more",
            )
        return self
