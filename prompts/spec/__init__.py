"""What a build asks for: one spec per kind of prompt, a union on `kind`."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from prompts.spec.common import Build, Sampling, Split
from prompts.spec.cot import COT_TEMPLATE, CotBuild
from prompts.spec.icl import ICL_TEMPLATE, IclBuild
from prompts.spec.instructions import IF_TEMPLATE, InstructionBuild

__all__ = [
    "COT_TEMPLATE",
    "ICL_TEMPLATE",
    "IF_TEMPLATE",
    "Build",
    "BuildSpec",
    "CotBuild",
    "IclBuild",
    "InstructionBuild",
    "Sampling",
    "Split",
    "build_spec",
]

BuildSpec = Annotated[IclBuild | CotBuild | InstructionBuild, Field(discriminator="kind")]

build_spec: TypeAdapter[IclBuild | CotBuild | InstructionBuild] = TypeAdapter(BuildSpec)
