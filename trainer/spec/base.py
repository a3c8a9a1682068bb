"""What all of a spec's values have in common."""

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from prompts.record import Frozen


class Spec(Frozen):
    """A value whose numbers are finite: an infinite one is no rate, share, weight or bound."""

    model_config = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True)
class AtLeast:
    """How many a tuple must have. pydantic's own `min_length` doesn't count those that are wrong,
    and so says of a wrong one that there are too few, too."""

    count: int

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "minItems": self.count}

    def _check(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(given) < self.count:
            raise PydanticCustomError(
                "too_short",
                "There should be at least {count}, not {given}",
                {"count": self.count, "given": len(given)},
            )
        return given
