"""Instructions that the teacher writes itself: evol-instruct and self-instruct."""

from prompts.instructions.evol import EvolPlan
from prompts.instructions.pool import RoundPools, TaskPool, task_of
from prompts.instructions.self_instruct import SelfInstructPlan, slots
from prompts.plan import Plan, RescorePlan
from prompts.spec import InstructionBuild
from prompts.spec.methods import EvolInstruct, SelfInstruct

__all__ = [
    "BuildPlan",
    "EvolPlan",
    "RoundPools",
    "SelfInstructPlan",
    "TaskPool",
    "slots",
    "task_of",
    "with_method",
]

BuildPlan = Plan | EvolPlan | SelfInstructPlan | RescorePlan


def with_method(plan: Plan, pools: RoundPools | None = None) -> BuildPlan:
    """The plan of a build whose instructions come from where its method says.

    `pools`: the pool of each round, for self-instruct. Raises ValueError if it is missing.
    """
    if not isinstance(plan.spec, InstructionBuild):
        return plan
    match plan.spec.method:
        case EvolInstruct() as method:
            return EvolPlan(plan, method)
        case SelfInstruct() as method:
            if pools is None:
                raise ValueError("self-instruct needs the pool of each round")
            return SelfInstructPlan(plan, method, pools)
        case _:
            return plan
