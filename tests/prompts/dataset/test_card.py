"""`datasets` itself opens what is written here."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from prompts.dataset import assemble, write_chunk
from prompts.record import Message, Record, Rejected
from tests.prompts.making import ended


def opened(folder: Path, rows: list[Record | Rejected], *config: str):  # type: ignore[no-untyped-def]
    from datasets import load_dataset

    if not (folder / "out").exists():
        chunk = write_chunk(folder / "c", rows).path
        assemble(folder / "out", [chunk], recipe={}, seeds=len(rows))
    return load_dataset(str(folder / "out"), *config, cache_dir=str(folder / "cache"))


def test_load_dataset_opens_three_splits_and_the_rejected_apart(tmp_path: Path) -> None:
    rows = ended(200)
    loaded = opened(tmp_path, rows)
    assert list(loaded) == ["train", "validation", "test"]
    assert sum(map(len, loaded.values())) == 100
    first = loaded["train"][0]
    expected = next(row for row in rows if isinstance(row, Record) and row.split == "train")
    assert Record.model_validate(first) == expected
    rejected = opened(tmp_path, rows, "rejected")
    assert {name: len(part) for name, part in rejected.items()} == {"rejected": 100}


def test_splits_without_rows_do_not_stop_it(tmp_path: Path) -> None:
    rows = [row for row in ended(40) if isinstance(row, Record) and row.split == "train"]
    assert {name: len(part) for name, part in opened(tmp_path, rows).items()} == {
        "train": len(rows)
    }


def test_an_empty_dataset_never_opens_its_rejected_rows_instead(tmp_path: Path) -> None:
    rows = [row for row in ended(40) if isinstance(row, Rejected)]
    with pytest.raises(ValueError, match="no data"):
        opened(tmp_path, rows)
    assert len(opened(tmp_path, rows, "rejected")["rejected"]) == 20


HOSTILE = "``````\n# Mine now\n```\n| a | b |\n|---|---|\n<script>\n---\nconfigs: []\n"


def card_of(folder: Path, rows: list[Record | Rejected], **options: Any) -> str:
    chunk = write_chunk(folder / "c", rows).path
    given: dict[str, Any] = {"recipe": {"build": {"kind": "cot"}}, "name": "mine"}
    assemble(folder / "out", [chunk], seeds=len(rows), **given | options)
    return (folder / "out" / "README.md").read_text()


def headings(card: str) -> list[str]:
    tokens = MarkdownIt().parse(card.partition("\n---\n")[2])
    places = (n for n, token in enumerate(tokens) if token.type == "heading_open")
    return [tokens[place + 1].content for place in places]


def test_the_card_tells_counts_tokens_recipe_and_a_few_rows(tmp_path: Path) -> None:
    rows = ended(40)
    rows[0] = rows[0].model_copy(update={"flags": ("personal_data",)})
    card = card_of(tmp_path, rows, totals={"gpu_seconds": 2.5, "requests": 1234.0})
    head = yaml.safe_load(card.split("---\n")[1])
    assert [config["config_name"] for config in head["configs"]] == ["default", "rejected"]
    for line in (
        "20 of 40 rows were accepted, 10 rejected, 10 not needed.",
        "| wrong_answer | 10 |",
        "| personal_data | 1 |",
        "| prompt_tokens | 90 |",
        "| completion_tokens | 60 |",
        "| gpu_seconds | 2.5 |",
        "| requests | 1,234 |",
    ):
        assert line in card.splitlines(), line
    blocks = [token for token in MarkdownIt().parse(card) if token.type == "fence"]
    assert [block.info for block in blocks] == ["json", "json", "json", "yaml"]
    assert yaml.safe_load(blocks[-1].content) == {"build": {"kind": "cot"}}
    shown = [yaml.safe_load(block.content) for block in blocks[:3]]
    assert [row["id"] for row in shown] == ["q0", "q1", "q4"]
    assert shown[0]["completion"][0]["content"] == "One more. The answer is 1."
    assert headings(card) == ["mine", "The first rows", "Recipe"]


def test_nothing_that_a_model_or_a_user_wrote_breaks_out_of_its_place(tmp_path: Path) -> None:
    first, *others = ended(8)
    said = (Message(role="assistant", content=HOSTILE),)
    changes = {"completion": said, "answer": HOSTILE, "teacher": HOSTILE, "id": HOSTILE}
    rows = [first.model_copy(update=changes), *others]
    recipe = {"build": {"system": HOSTILE, "notes": [HOSTILE]}, "note": "x\n```\n# Mine now\ny"}
    card = card_of(tmp_path, rows, recipe=recipe, name="a|b `c` <b> [d](e) # x")
    tokens = MarkdownIt().enable("table").parse(card.partition("\n---\n")[2])
    kinds = {token.type for token in tokens}
    assert {"html_block", "html_inline", "hr"} & kinds == set()
    inline = {each.type for token in tokens for each in token.children or ()}
    assert {"link_open", "html_inline"} & inline == set()
    assert headings(card)[1:] == ["The first rows", "Recipe"]
    title = next(token for token in tokens if token.type == "inline").children or []
    assert "".join(token.content for token in title) == "a|b `c` <b> [d](e) # x"
    blocks = [token.content for token in tokens if token.type == "fence"]
    assert yaml.safe_load(blocks[-1]) == recipe
    assert yaml.safe_load(card.split("\n---\n")[0])["configs"][0]["config_name"] == "default"


def test_long_rows_and_recipes_are_cut_in_the_card_alone(tmp_path: Path) -> None:
    first, *others = ended(8)
    said = (Message(role="assistant", content="x" * 100_000),)
    rows = [first.model_copy(update={"completion": said}), *others]
    recipe = {"build": {"system": [f"line {n}" for n in range(5000)]}}
    card = card_of(tmp_path, rows, recipe=recipe)
    assert len(card) < 20_000
    assert f"{'x' * 250}… 99,500 more characters …{'x' * 250}" in card
    assert "`recipe.yaml` has it whole" in card
    assert "line 4999" in (tmp_path / "out" / "recipe.yaml").read_text()
    one_line = card_of(tmp_path / "again", rows, recipe={"a": "x" * 9000})
    assert "`recipe.yaml` has it whole" in one_line


MAIL, PHONE = "jane.doe@example.org", "+1 212 555 0187"


@pytest.mark.slow  # Presidio takes seconds to import.
@pytest.mark.parametrize("action", ["flag", "reject"])
def test_personal_data_that_the_build_looked_for_is_masked_on_the_card(
    tmp_path: Path, action: str
) -> None:
    first, second, *others = ended(8)
    # Across the cut at 250 characters, beyond all that is searched, in a prompt, in an id.
    far = f"{'x ' * 120}{MAIL} {'y ' * 300_000}{MAIL} {'z ' * 120}"
    rows = [
        first.model_copy(update={"completion": (Message(role="assistant", content=far),)}),
        second.model_copy(
            update={"prompt": (Message(role="user", content=f"Call {PHONE}!"),), "id": MAIL}
        ),
        *others,
    ]
    check = {"kind": "personal_data", "action": action}
    card = card_of(tmp_path, rows, recipe={"build": {"kind": "cot", "checks": [check]}})
    assert "jane.doe" not in card
    assert "example.org" not in card
    assert PHONE not in card
    assert {"x [EMAIL_ADD", "DDRESS] z", '"[EMAIL_ADDRESS]"'} == {
        part for part in ("x [EMAIL_ADD", "DDRESS] z", '"[EMAIL_ADDRESS]"') if part in card
    }
    assert "Call [PHONE_NUMBER]!" in card
    assert "masked here" in card
    rows_as_they_are = (tmp_path / "out" / "data").glob("*.parquet")
    assert any(MAIL.encode() in path.read_bytes() for path in rows_as_they_are)


@pytest.mark.parametrize(
    "checks",
    [[], [{"kind": "personal_data", "action": "off"}]],
    ids=["not looked for", "off"],
)
def test_without_that_check_rows_are_shown_as_they_are(
    tmp_path: Path, checks: list[dict[str, str]]
) -> None:
    first, *others = ended(8)
    rows = [first.model_copy(update={"answer": MAIL}), *others]
    card = card_of(tmp_path, rows, recipe={"build": {"kind": "cot", "checks": checks}})
    assert MAIL in card
    assert "masked" not in card


@pytest.mark.slow
def test_only_the_sorts_that_the_check_names_are_masked(tmp_path: Path) -> None:
    first, *others = ended(8)
    rows = [first.model_copy(update={"answer": f"{MAIL} or {PHONE}"}), *others]
    check = {"kind": "personal_data", "entities": ["PHONE_NUMBER"]}
    card = card_of(tmp_path, rows, recipe={"build": {"kind": "cot", "checks": [check]}})
    assert f"{MAIL} or [PHONE_NUMBER]" in card
