"""Two tasks, demonstrations, and features."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from retort_lowrank import LowRankLlamaConfig, LowRankLlamaForCausalLM

from prompts.record import Kind, Message
from tests.trainer.conftest import (
    make_model,
    make_records,
    save_model,
)
from tests.trainer.methods.made import (
    all_rows,
    dense,
    icl_records,
    kept_targets,
    learnt,
    loss_of,
    made,
    spec_of,
)
from tests.trainer.test_adapters import phi3
from trainer.adapters import merge_lora
from trainer.batch import pack, pad
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.objectives import cross_entropy, forward_kl
from trainer.objectives.features import hidden_distance, relation_kl
from trainer.student import Look, Projection, look
from trainer.training import train_on

LABELLED = [row.model_copy(update={"answer": str(n)}) for n, row in enumerate(make_records(5))]


def test_step_by_step_asks_twice_and_weighs_the_tasks(tmp_path: Path) -> None:
    """label_share * mean over label tokens + the rest * mean over rationale tokens."""
    spec = spec_of(tmp_path, "step_by_step", label_share=0.3, rationale_prefix="w39 ")
    run, student = made(spec, LABELLED)
    labels = [row for row in run.rows.rows if row.row.endswith("#label")]
    rationales = [row for row in run.rows.rows if row.row.endswith("#rationale")]
    assert (len(labels), len(rationales)) == (5, 5)
    vocabulary = run.tokenizer.get_vocab()
    assert all(vocabulary["w39"] in row.ids[: row.prompt_tokens] for row in rationales)
    assert all(vocabulary["w39"] not in row.ids for row in labels)
    assert labels[4].ids[labels[4].prompt_tokens :].tolist() == [vocabulary["4"], 3]
    means = []
    for rows in (labels, rationales):
        batch = pad(rows)
        means.append(cross_entropy(dense(run.model, batch), kept_targets(batch)).mean().item())
    expected = 0.3 * means[0] + 0.7 * means[1]
    assert loss_of(student, all_rows(run))[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("share", "task"), [(1.0, "label"), (0.0, "rationale")])
def test_step_by_step_at_the_ends_of_label_share_is_one_tasks_mean(
    tmp_path: Path, share: float, task: str
) -> None:
    run, student = made(spec_of(tmp_path, "step_by_step", label_share=share), LABELLED)
    assert {row.row.partition("#")[2] for row in run.rows.rows} == {task}
    batch = all_rows(run)
    mean = cross_entropy(dense(run.model, batch), kept_targets(batch)).mean().item()
    assert loss_of(student, batch)[0].item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    ("share", "given"),
    [
        (1.0, {"reasoning": " ".join(["w1"] * 99)}),
        (1.0, {"reasoning": None}),
        (0.0, {"answer": " ".join(["w1"] * 99)}),
        (0.0, {"answer": None}),
    ],
)
def test_step_by_step_asks_nothing_of_the_task_that_it_doesnt_train(
    tmp_path: Path, share: float, given: dict[str, Any]
) -> None:
    """Too long for `max_length`, or not there at all."""
    rows = [row.model_copy(update=given) for row in LABELLED]
    spec = spec_of(tmp_path, "step_by_step", label_share=share, rationale_prefix="")
    run, _ = made(spec, rows)
    assert (len(run.rows.rows), run.rows.too_long, run.rows.unsuited) == (5, 0, 0)
    assert run.rows.longest == max(len(row.ids) for row in run.rows.rows)


def test_step_by_step_counts_the_rows_of_either_task_that_are_too_long(tmp_path: Path) -> None:
    long = LABELLED[0].model_copy(update={"reasoning": " ".join(["w1"] * 99)})
    run, _ = made(spec_of(tmp_path, "step_by_step"), [long, *LABELLED[1:]])
    assert (len(run.rows.rows), run.rows.too_long) == (9, 1)
    assert run.rows.longest > 99


def test_step_by_steps_label_may_have_a_prefix(tmp_path: Path) -> None:
    run, _ = made(spec_of(tmp_path, "step_by_step", label_prefix="w38 "), LABELLED)
    asked = [run.tokenizer.get_vocab()["w38"] in row.ids for row in run.rows.rows]
    assert asked == [row.row.endswith("#label") for row in run.rows.rows]


def test_step_by_steps_label_may_be_worded(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "step_by_step", label_template="w36 {{ answer }} w35")
    run, _ = made(spec, LABELLED)
    known = run.tokenizer.get_vocab()
    said = {row.row: row.ids[row.prompt_tokens :].tolist() for row in run.rows.rows}
    for number, record in enumerate(LABELLED):
        assert said[f"{record.id}#label"] == [known["w36"], known[str(number)], known["w35"], 3]
        assert known["w36"] not in said[f"{record.id}#rationale"]


@pytest.mark.parametrize("template", ["w36", "{{ answer }} {{ gold }}", "{{ answer", " "])
def test_step_by_steps_label_says_the_answer_alone(tmp_path: Path, template: str) -> None:
    with pytest.raises(ValueError, match=r"must say \{\{ answer \}\}|syntax error|is empty"):
        spec_of(tmp_path, "step_by_step", label_template=template)


def test_step_by_step_needs_answers_apart(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="step_by_step needs the answers apart"):
        made(spec_of(tmp_path, "step_by_step"), make_records(3))
    with pytest.raises(BadInput, match="step_by_step needs chain-of-thought rows"):
        made(spec_of(tmp_path, "step_by_step"), make_records(3, Kind.IF))
    with pytest.raises(ValueError, match="must differ"):
        spec_of(tmp_path, "step_by_step", rationale_prefix="")
    with pytest.raises(BadInput, match="step_by_step needs the answers apart"):
        made(spec_of(tmp_path, "step_by_step", label_share=1), make_records(3))


def test_meta_ict_mixes_soft_and_hard_and_learns_prompts(tmp_path: Path) -> None:
    fields = {"hard_weight": 0.25, "language_model_weight": 0.6, "kd_temperature": 2.0}
    run, student = made(spec_of(tmp_path, "meta_ict", **fields), icl_records(4))
    main, text = learnt(student, [all_rows(run)])
    ours, theirs = dense(run.model, main), dense(load_model(tmp_path / "teacher"), main)
    soft, hard = (
        forward_kl(ours, theirs, 2.0).mean(),
        cross_entropy(ours, kept_targets(main)).mean(),
    )
    assert loss_of(student, main)[0].item() == pytest.approx(
        (0.75 * soft + 0.25 * hard).item(), rel=1e-4
    )
    assert [len(row.ids) for row in text.rows] == [row.prompt_tokens for row in run.rows.rows]
    plain = cross_entropy(dense(run.model, text), kept_targets(text)).mean().item()
    assert loss_of(student, text)[0].item() == pytest.approx(0.6 * plain, rel=1e-5)


def test_without_a_language_model_loss_no_prompt_is_learnt(tmp_path: Path) -> None:
    run, student = made(spec_of(tmp_path, "meta_ict", language_model_weight=0), icl_records(2))
    assert len(learnt(student, [all_rows(run)])) == 1


@pytest.mark.parametrize("packing", [False, True])
def test_multitask_ict_takes_the_demonstrations_from_the_student_alone(
    tmp_path: Path, packing: bool
) -> None:
    run, student = made(spec_of(tmp_path, "multitask_ict", hard_weight=0), icl_records(4))
    full, _ = made(spec_of(tmp_path, "meta_ict"), icl_records(4))
    bare, shown = run.rows.rows, full.rows.rows
    assert all(b.prompt_tokens < f.prompt_tokens for b, f in zip(bare, shown, strict=True))
    ours, theirs = dense(run.model, pad(bare)), dense(load_model(tmp_path / "teacher"), pad(shown))
    batch = pack(bare, 64) if packing else pad(bare)
    expected = forward_kl(ours, theirs, 1.0).mean().item()
    assert loss_of(student, batch)[0].item() == pytest.approx(expected, rel=1e-4)


def test_in_context_methods_refuse_other_rows_and_templates(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"meta_ict needs in-context rows.*kind cot"):
        made(spec_of(tmp_path, "meta_ict"), make_records(3))
    with pytest.raises(BadInput, match="query_template doesn't give the end of row r0"):
        made(
            spec_of(
                tmp_path,
                "multitask_ict",
                query_template="Q: {{ input }}{% for d in demonstrations %}{% endfor %}",
            ),
            icl_records(2),
        )


@pytest.mark.parametrize("method", ["meta_ict", "multitask_ict"])
def test_rows_too_long_with_their_demonstrations_are_left_out_and_counted(
    tmp_path: Path, method: str
) -> None:
    """The teacher sees them also where the student doesn't."""
    first, *others = icl_records(4)
    content = f"{' '.join(['w1'] * 60)} {first.prompt[0].content}"
    long = first.model_copy(update={"prompt": (Message(role="user", content=content),)})
    run, student = made(spec_of(tmp_path, method), [long, *others])
    assert [row.row for row in run.rows.rows] == ["r1", "r2", "r3"]
    assert run.rows.too_long == 1
    assert run.rows.longest > 64
    assert loss_of(student, all_rows(run))[0].item() > 0


def features(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"divergence": None, "features": list(parts)}


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_hidden_states_through_projections(tmp_path: Path, distance: str) -> None:
    part = {"kind": "hidden", "distance": distance, "layers": [(1, 2), (2, 1)], "weight": 0.5}
    run, student = made(spec_of(tmp_path, "kd", **features(part)))
    batch, teacher = all_rows(run), load_model(tmp_path / "teacher")
    assert student.learned is not None
    first, second = student.learned.parameters()
    with torch.no_grad():
        states = [
            m.base_model(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
            for m in (run.model, teacher)
        ]
    mask = torch.zeros_like(batch.completion_mask)
    mask[:, :-1] = batch.completion_mask[:, 1:]
    found = [
        hidden_distance(states[0][mine][mask] @ w.T, states[1][other][mask], distance).mean()  # type: ignore[arg-type]
        for (mine, other), w in zip(((1, 2), (2, 1)), (first, second), strict=True)
    ]
    expected = 0.5 * torch.stack(found).mean().item()
    loss, metrics = loss_of(student, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert first.grad is not None
    assert first.grad.abs().max() > 0
    assert metrics.keys() == {"hidden"}


@pytest.mark.parametrize("packing", [False, True])
def test_relations_are_of_a_row_alone_and_stand_beside_a_divergence(
    tmp_path: Path, packing: bool
) -> None:
    part = {"kind": "relation", "heads": 4, "weight": 2.0}
    run, student = made(spec_of(tmp_path, "kd", features=[part]))
    rows = run.rows.rows
    alone = sum(loss_of(student, pad([row]), 1.0)[0].item() for row in rows)
    loss, metrics = loss_of(student, pack(rows, 64) if packing else pad(rows), 1.0)
    assert metrics.keys() == {"forward_kl", "entropy", "relation"}
    assert metrics["relation"] > 0
    assert loss.item() == pytest.approx(alone, rel=1e-4)
    assert loss.item() == pytest.approx((metrics["forward_kl"] + 2 * metrics["relation"]).item())


def test_relations_are_the_mean_over_queries_keys_and_values(tmp_path: Path) -> None:
    run, student = made(spec_of(tmp_path, "kd", **features({"kind": "relation", "heads": 2})))
    batch, teacher = pad(run.rows.rows[:1]), load_model(tmp_path / "teacher")
    names: tuple[Projection, ...] = ((1, "q_proj"), (1, "k_proj"), (1, "v_proj"))
    ours, theirs = (look(m, batch, Look(projections=names)) for m in (run.model, teacher))
    causal = torch.ones(1, *[batch.input_ids.shape[1]] * 2).tril().bool()
    each = [relation_kl(ours.projections[n], theirs.projections[n], 2, causal) for n in names]
    expected = torch.stack(each)[:, :, :-1][:, batch.completion_mask[:, 1:]].mean().item()
    assert loss_of(student, batch)[0].item() == pytest.approx(expected, rel=1e-5)


def test_relations_of_a_model_with_itself_are_zero(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "kd", **features({"kind": "relation", "heads": 2}))
    run, student = made(spec.model_copy(update={"teacher": spec.student}))
    loss, _ = loss_of(student, all_rows(run))
    assert loss.item() == pytest.approx(0.0, abs=1e-7)


def test_relations_are_those_of_the_adapted_layers(tmp_path: Path) -> None:
    run, student = made(spec_of(tmp_path, "kd", **features({"kind": "relation"}), lora={}))
    base = loss_of(student, all_rows(run))[0].item()
    adapters = {n: p for n, p in run.model.named_parameters() if p.requires_grad}
    for parameter in adapters.values():
        torch.nn.init.normal_(parameter, std=0.1)
    adapted, _ = loss_of(student, all_rows(run))
    adapted.backward()
    reached = {n for n, p in adapters.items() if p.grad is not None and p.grad.abs().max() > 0}
    assert {name for name in adapters if "layers.1" in name and "o_proj" not in name} <= reached
    merge_lora(run.model)
    merged = loss_of(student, all_rows(run))[0].item()
    assert adapted.item() == pytest.approx(merged, rel=1e-4)
    assert adapted.item() != pytest.approx(base, rel=1e-2)


@pytest.mark.parametrize("lora", [None, {"layers": ["all"]}])
def test_relations_of_a_factorized_student_are_those_of_its_product(
    tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    spec = spec_of(tmp_path, "kd", **features({"kind": "relation"}), lora=lora)
    dense_one = make_model(3)
    names = [f"layers.1.self_attn.{name}_proj" for name in "qv"]
    config = LowRankLlamaConfig(**{**dense_one.config.to_dict(), "ranks": dict.fromkeys(names, 4)})
    factorized = LowRankLlamaForCausalLM(config)
    factorized.load_state_dict(dense_one.state_dict(), strict=False)
    with torch.no_grad():
        for name in names:
            pair = factorized.model.get_submodule(name)
            product = pair.left.weight @ pair.right.weight
            dense_one.model.get_submodule(name).weight.copy_(product)
    losses = []
    for model in (dense_one, factorized):
        shutil.rmtree(tmp_path / "student")
        save_model(tmp_path / "student", model)
        run, student = made(spec)
        losses.append(loss_of(student, all_rows(run))[0].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0] > 0


def test_a_student_with_fused_projections_has_no_relations(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "kd", **features({"kind": "relation"}))
    save_model(tmp_path / "student", phi3())
    with pytest.raises(BadInput, match="the student keeps its queries, keys and values elsewhere"):
        made(spec)


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"kind": "hidden", "layers": [(9, 1)]}, r"there is no pair \(9, 1\)"),
        ({"kind": "relation", "student_layer": 5}, "student_layer: there is no layer 5"),
        ({"kind": "relation", "teacher_layer": -3}, "teacher_layer: there is no layer -3"),
        ({"kind": "relation", "heads": 5}, "5 relation heads don't divide the student's widths"),
    ],
)
def test_features_that_do_not_fit_are_named(
    tmp_path: Path, part: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        made(spec_of(tmp_path, "kd", **features(part)))


@pytest.mark.slow
def test_a_step_divides_prompts_by_their_own_tokens_and_answers_by_theirs(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "meta_ict", optimization={"batch_size": 2, "accumulation": 3})
    run, student = made(spec, icl_records(6))
    expected = sum(loss_of(student, part)[0].item() for part in learnt(student, [all_rows(run)]))
    trained = train_on(spec, icl_records(6), [], tmp_path / "out", silent)
    ((_, loss),) = json.loads((trained / "retort.json").read_text())["losses"]
    assert loss == pytest.approx(expected, rel=1e-5)
