"""What a build asks for: one spec per kind of prompt, a union on `kind`."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from prompts.spec.common import Build
from prompts.spec.cot import COT_TEMPLATE, CotBuild, Rationalise
from prompts.spec.icl import ICL_TEMPLATE, IclBuild
from prompts.spec.instructions import IF_TEMPLATE, InstructionBuild
from prompts.spec.rescore import RescoreBuild
from prompts.spec.sampling import Sampling, Split
from prompts.spec.shots import Shots
from prompts.spec.signal import Signal, SignalRefusedError, check_signal

__all__ = [
    "COT_TEMPLATE",
    "ICL_TEMPLATE",
    "IF_TEMPLATE",
    "AskedBuild",
    "Build",
    "BuildSpec",
    "CotBuild",
    "IclBuild",
    "InstructionBuild",
    "Rationalise",
    "RescoreBuild",
    "Sampling",
    "Shots",
    "Signal",
    "SignalRefusedError",
    "Split",
    "build_spec",
    "check_signal",
]

AskedBuild = IclBuild | CotBuild | InstructionBuild
"""Builds whose rows a teacher writes."""

BuildSpec = Annotated[
    IclBuild | CotBuild | InstructionBuild | RescoreBuild, Field(discriminator="kind")
]

build_spec: TypeAdapter[IclBuild | CotBuild | InstructionBuild | RescoreBuild] = TypeAdapter(
    BuildSpec
)
