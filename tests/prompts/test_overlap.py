import pytest

from prompts.overlap import EvaluationSet, evaluation_texts, words_of

QUESTION = (
    "A farmer has twelve red hens and buys nine more on Monday and sells four on Friday; "
    "how many hens has he now?"
)


def test_case_and_punctuation_do_not_hide_an_exact_copy() -> None:
    known = EvaluationSet("eval", [("e1", "What is 2 + 2?")])
    found = known.find("what is  2 2")
    assert found is not None
    assert (found.row, found.how, found.words) == ("e1", "exact", "what is 2 2")
    assert known.find("what is 2 + 3") is None


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not() -> None:
    known = EvaluationSet("eval", [("e0", "something else"), ("e1", QUESTION)])
    words = words_of(QUESTION)
    found = known.find("Please: " + " ".join(words[2:15]) + " Thanks.")
    assert found is not None
    assert (found.row, found.how, found.words) == ("e1", "13-gram", " ".join(words[2:15]))
    assert known.find("Please: " + " ".join(words[2:14]) + " Thanks.") is None


def test_a_phrase_of_the_template_is_no_overlap() -> None:
    phrase = "Read the following question with care and then answer it in one word only please"
    many = [(f"e{n}", f"{phrase} question number {n}") for n in range(11)]
    assert EvaluationSet("eval", many).find(phrase + " something new") is None
    assert EvaluationSet("eval", many[:10]).find(phrase + " something new") is not None


def test_scripts_without_spaces_are_compared_by_character() -> None:
    text = "農夫は赤い鶏を十二羽飼っています今は何羽いますか"
    found = EvaluationSet("eval", [("e1", text)]).find("問題：" + text[3:18])
    assert found is not None
    assert found.how == "13-gram"


def test_a_text_without_words_overlaps_with_nothing() -> None:
    known = EvaluationSet("eval", [("e1", "..."), ("e2", "word")])
    assert len(known) == 1
    assert known.find("?!") is None


def test_inputs_count_and_answers_do_not() -> None:
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Ask me"}]
    rows = [{"id": 7, "prompt": prompt, "answer": "5"}, {"question": "Why?", "output": "So."}]
    assert list(evaluation_texts(rows)) == [("7", "Ask me"), ("row-000002", "Why?")]


def test_a_row_without_any_input_is_named() -> None:
    with pytest.raises(ValueError, match="'e3' has no text in any of prompt, question"):
        list(evaluation_texts([{"id": "e3", "answer": "5"}]))


def test_the_first_overlap_of_several_texts_is_given() -> None:
    known = EvaluationSet("eval", [("e1", "one two"), ("e2", "three four")])
    found = known.find_in(["nothing", "three four", "one two"])
    assert found is not None
    assert found.row == "e2"


TWO = [{"id": "e1", "instruction": "Translate to French.", "input": "red apple"}]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (TWO[0], ()),
        # Shown by a template of other fields, in another order.
        ({"id": "s", "q": "RED apple"}, ("red Apple!", "translate to French")),
        # Beside what no evaluation row has.
        (TWO[0] | {"style": "short"}, ("red apple", "short", "Translate to French.")),
    ],
)
def test_a_row_of_several_fields_is_found_whole(row: dict[str, str], shown: tuple[str]) -> None:
    known = EvaluationSet("eval", evaluation_texts(TWO))
    found = known.find_row(row, shown)
    assert found is not None
    assert (found.row, found.how) == ("e1", "exact")


def test_a_part_that_another_row_shares_is_not_the_row() -> None:
    known = EvaluationSet("eval", evaluation_texts(TWO))
    other = {"instruction": "Translate to French.", "input": "green pear"}
    assert known.find_row(other, ("green pear", "Translate to French.")) is None
    assert known.find_row({}, ()) is None
    # In the order in which a prompt shows them they are one text, too.
    assert known.find("Translate to French.\n\nred apple") is not None


def test_fields_of_one_row_that_say_the_same_make_no_phrase_common() -> None:
    row = {"question": QUESTION, "text": QUESTION, "query": QUESTION}
    rows = [{"id": f"e{n}", **row} for n in range(4)]
    words = " ".join(words_of(QUESTION)[1:15])
    assert EvaluationSet("eval", evaluation_texts(rows)).find(words) is not None
