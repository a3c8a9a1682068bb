from hypothesis import given
from hypothesis import strategies as st

from prompts.seen import Seen, digest16
from tests.prompts.making import LETTERS


@given(st.lists(st.text(LETTERS, max_size=3), max_size=60))
def test_it_remembers_what_a_dict_would(texts: list[str]) -> None:
    seen, known = Seen(), dict[str, int]()
    for number, text in enumerate(texts):
        assert seen.first(digest16(text), number) == known.get(text)
        known.setdefault(text, number)
    assert len(seen) == len(known)


def test_it_grows() -> None:
    seen = Seen()
    for number in range(5000):
        assert seen.first(digest16(str(number)), number) is None
    assert [seen.first(digest16(str(number)), 0) for number in range(5000)] == list(range(5000))


def test_keys_with_equal_halves_are_apart() -> None:
    seen = Seen()
    keys = [a * 8 + b * 8 for a in (b"a", b"b") for b in (b"a", b"b")]
    assert [seen.first(key, number) for number, key in enumerate(keys)] == [None] * 4
    assert [seen.first(key, 9) for key in keys] == [0, 1, 2, 3]
