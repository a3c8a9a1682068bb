"""What the figures of a report do not say, as far as this chain gives cause to say it."""

from trainer.report.chain import Chain
from trainer.report.figures import measurement

MASKS = frozenset({"wanda", "magnitude", "sparsegpt"})
"""Stages that zero weights in place."""


def caveats(chain: Chain) -> tuple[str, ...]:
    """Sentences for the end of the page; the runner's own notes come first."""
    return (*chain.notes, *_accuracy(chain), *_training(chain), *_speed(chain), *_stages(chain))


def _accuracy(chain: Chain) -> list[str]:
    measured = [found for row in chain.models if (found := measurement(row))]
    if not measured:
        return ["No model of this chain was measured: its recipe has no evaluation rows."]
    asked = sorted({skill.n for found in measured for skill in found.skills.values()})
    rows = " or ".join(str(number) for number in asked)
    notes = [
        f"Accuracies are of greedy answers to {rows} rows per skill, with Wilson's 95% intervals. "
        "They cover the choice of rows from the same source, and nothing else: another source of "
        "questions may give other figures.",
        "Differences and shares of the gap treat the models as measured on rows of their own, "
        "though all answered the same ones; where models fail alike, their intervals are too wide.",
    ]
    cut = sum(found.cut for found in measured)
    if cut:
        notes.append(
            f"{cut} answers met the limit of new tokens before their end and count as they stood."
        )
    return notes


def _training(chain: Chain) -> list[str]:
    if chain.training is None:
        return []
    seed = "" if chain.training.seed is None else f" (seed {chain.training.seed})"
    return [
        f"The student was trained once{seed}. No interval here covers what another seed, or "
        "another dataset of the same teacher, would have given."
    ]


def _speed(chain: Chain) -> list[str]:
    stages = [row.stage for row in chain.models if row.stage]
    timed = any(stage.after.timed for stage in stages)
    if not timed and not any(measurement(row) for row in chain.models):
        return []
    where = "on this machine's CPU" if chain.machine.gpu is None else f"on {chain.machine.gpu}"
    return [
        f"Speeds were measured once {where}, with whatever else ran on it. They rank models on "
        "that machine at that batch size; on other hardware, the order itself may differ. Speeds "
        "of vLLM and of transformers can't be compared with each other."
    ]


def _stages(chain: Chain) -> list[str]:
    stages = [row.stage for row in chain.models if row.stage]
    notes = []
    if any(stage.kind in MASKS for stage in stages):
        notes.append(
            "Unstructured pruning stores its zeros: neither bytes nor speed change by the mask."
        )
    if any(stage.kl_tokens and stage.kl_split == "train" for stage in stages):
        notes.append(
            "Perplexity, KL, likeliest tokens and answers to rows of stages are over train rows, "
            "which the student has learnt from: the dataset has fewer than two validation rows."
        )
    if any(stage.serving for stage in stages):
        notes.append(
            "vLLM on a CPU is not bit-stable under batching: agreement of greedy answers may move "
            "a little from run to run; the mean difference of log-probabilities is the firmer "
            "figure."
        )
    branched = {row.source for row in chain.models if row.role == "stage"}
    if len(stages) > 1 and len(branched) < len(stages):
        notes.append(
            "Stages may branch: 'from' says which model each worked on, so gains don't simply add."
        )
    return notes
