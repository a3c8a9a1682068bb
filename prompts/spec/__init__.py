"""What a build asks for: one spec per kind of prompt, a union on `kind`."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from prompts.spec.common import Build
from prompts.spec.cot import COT_TEMPLATE, CotBuild, Rationalise
from prompts.spec.icl import ICL_TEMPLATE, IclBuild
from prompts.spec.instructions import IF_TEMPLATE, InstructionBuild
from prompts.spec.sampling import Sampling, Split
from prompts.spec.shots import Shots
from prompts.spec.signal import Signal, SignalRefusedError, check_signal

__all__ = [
    "COT_TEMPLATE",
    "ICL_TEMPLATE",
    "IF_TEMPLATE",
    "Build",
    "BuildSpec",
    "CotBuild",
    "IclBuild",
    "InstructionBuild",
    "Rationalise",
    "Sampling",
    "Shots",
    "Signal",
    "SignalRefusedError",
    "Split",
    "build_spec",
    "check_signal",
]

BuildSpec = Annotated[IclBuild | CotBuild | InstructionBuild, Field(discriminator="kind")]

build_spec: TypeAdapter[IclBuild | CotBuild | InstructionBuild] = TypeAdapter(BuildSpec)
