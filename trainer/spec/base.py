"""What all of a spec's values have in common."""

from pydantic import ConfigDict

from prompts.record import Frozen


class Spec(Frozen):
    """A value whose numbers are finite: an infinite one is no rate, share, weight or bound."""

    model_config = ConfigDict(allow_inf_nan=False)
