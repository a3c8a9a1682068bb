"""Instructions that the teacher writes itself: evol-instruct, self-instruct and magpie."""

from prompts.instructions.evol import EvolPlan
from prompts.instructions.magpie import MagpiePlan
from prompts.instructions.pool import RoundPools, TaskPool, task_of
from prompts.instructions.self_instruct import SelfInstructPlan, slots
from prompts.plan import Plan, RescorePlan
from prompts.spec import InstructionBuild
from prompts.spec.methods import EvolInstruct, Magpie, SelfInstruct

__all__ = [
    "BuildPlan",
    "EvolPlan",
    "MagpiePlan",
    "RoundPools",
    "SelfInstructPlan",
    "TaskPool",
    "slots",
    "task_of",
    "with_method",
]

BuildPlan = Plan | EvolPlan | SelfInstructPlan | MagpiePlan | RescorePlan


def with_method(plan: Plan, pools: RoundPools | None = None) -> BuildPlan:
    """The plan of a build whose instructions come from where its method says.

    `pools`: the pool of each round, for the methods that run in rounds. Raises ValueError if it is
    missing, and for magpie if it isn't known how the teacher's chat template begins a user's turn.
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
        case Magpie() as method:
            if pools is None or plan.teacher.opening is None:
                raise ValueError("magpie needs the pool of each round and the template's opening")
            return MagpiePlan(plan, method, pools, plan.teacher.opening)
        case _:
            return plan
