"""Distillation on the dataset's rows, with the teacher in the process or its signal stored."""

from torch import Tensor

from trainer.batch import Batch
from trainer.methods.features import make_features
from trainer.methods.method import Setting
from trainer.methods.teacher import Teacher, load_teacher
from trainer.objectives import DIVERGENCES, Divergence, Term, cross_entropy_term, divergence_term
from trainer.objectives.divergences import forward
from trainer.spec import ForwardKL, OffPolicy
from trainer.student import Losses, Objective, Seen


def forward_kl_method(spec: ForwardKL, setting: Setting) -> Objective:
    """KL(teacher || student), mixed with cross-entropy."""
    teacher = load_teacher(spec, setting)

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        term = towards(teacher, forward, teacher.kept(batch), spec.kd_temperature)
        return Losses(mixed("forward_kl", term, targets, spec.cross_entropy_weight))

    return Objective(losses)


def kd(spec: OffPolicy, setting: Setting) -> Objective:
    """Any divergence, mixed with cross-entropy, and losses on features beside it."""
    teacher = load_teacher(spec, setting)
    features = make_features(spec.features, setting.model, teacher.model)

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        theirs = teacher.look(batch, features.teacher_look)
        term = None
        if spec.divergence is not None:
            divergence = DIVERGENCES[spec.divergence.kind](spec.divergence)
            kept = teacher.kept(batch, theirs)
            term = towards(teacher, divergence, kept, spec.kd_temperature)
        name = spec.divergence.kind if spec.divergence else ""
        terms = mixed(name, term, targets, spec.cross_entropy_weight)
        return Losses(terms, features.losses(seen, theirs, batch))

    return Objective(losses, look=features.student_look, learned=features.learned)


def towards(teacher: Teacher, divergence: Divergence, kept: Tensor, kd_temperature: float) -> Term:
    """A divergence from the teacher's distributions behind hidden states [K, D']."""
    return divergence_term(divergence, kept, teacher.head, kd_temperature)


def mixed(
    name: str, soft: Term | None, targets: Tensor, cross_entropy_weight: float
) -> dict[str, tuple[float, Term]]:
    """(1 - w) * soft + w * cross-entropy; what weighs nothing isn't computed."""
    terms: dict[str, tuple[float, Term]] = {}
    if soft is not None and cross_entropy_weight < 1:
        terms[name] = (1.0 - cross_entropy_weight, soft)
    if cross_entropy_weight > 0:
        terms["cross_entropy"] = (cross_entropy_weight, cross_entropy_term(targets))
    return terms
