"""How a student is trained, by `method`: which rows, what else is needed, and the loss."""

from trainer.methods.hard import hard_targets, two_tasks
from trainer.methods.in_context import bare_rows, in_context
from trainer.methods.method import Fitting, Method, Setting
from trainer.methods.minillm import check_its_text, minillm
from trainer.methods.off_policy import forward_kl_method, kd
from trainer.methods.on_policy import gkd
from trainer.methods.selection import (
    check_confidence,
    count_left,
    select_all,
    select_demonstrated,
    select_rationales,
    select_two_tasks,
)
from trainer.methods.served import find_served, served_kl
from trainer.methods.stored import check_signal, select_signalled, stored_kl
from trainer.methods.teacher import check_teacher, check_vocabularies
from trainer.methods.uld import rows_for_both, uld

METHODS: dict[str, Method] = {
    "rationale_then_answer": Method(select_rationales, hard_targets),
    "sequence_level": Method(select_all, hard_targets),
    "step_by_step": Method(select_two_tasks, hard_targets, two_tasks),
    "forward_kl": Method(select_all, forward_kl_method),
    "kd": Method(select_all, kd),
    "stored_kl": Method(select_signalled, stored_kl, check=check_signal),
    "served_kl": Method(select_all, served_kl),
    "gkd": Method(select_all, gkd),
    "minillm": Method(select_all, minillm, check=check_its_text),
    "meta_ict": Method(select_demonstrated, in_context),
    "multitask_ict": Method(select_demonstrated, in_context, bare_rows),
    "uld": Method(select_all, uld, rows_for_both),
}

__all__ = [
    "METHODS",
    "Fitting",
    "Method",
    "Setting",
    "check_confidence",
    "check_teacher",
    "check_vocabularies",
    "count_left",
    "find_served",
]
