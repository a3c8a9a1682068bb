from prompts.likeness import Likest, NearIndex

WORDS = [f"w{n}" for n in range(60)]


def test_a_text_with_a_word_changed_is_a_near_duplicate() -> None:
    index = NearIndex(jaccard=0.7, permutations=256, shingle_words=3)
    index.add("a", " ".join(WORDS))
    changed = [*WORDS[:30], "other", *WORDS[31:]]  # 55 of 61 shingles are shared
    found = index.find(" ".join(changed))
    assert found is not None
    assert found.row == "a"
    assert abs(found.score - 55 / 61) < 0.08
    assert index.find(" ".join(reversed(WORDS))) is None


def test_the_limit_decides() -> None:
    half = " ".join([*WORDS[:45], *(f"v{n}" for n in range(15))])
    for limit, like in ((0.3, True), (0.8, False)):
        index = NearIndex(limit, permutations=256, shingle_words=1)
        index.add("a", " ".join(WORDS))
        assert (index.find(half) is not None) == like  # similarity 45/75


def test_longer_shingles_look_at_the_order() -> None:
    for words, like in ((1, True), (4, False)):
        index = NearIndex(0.7, permutations=64, shingle_words=words)
        index.add("a", "one two three four five six")
        assert (index.find("six five four three two one") is not None) == like


def test_what_is_like_no_other_joins_the_pool() -> None:
    index = NearIndex(0.8, permutations=64, shingle_words=3)
    assert index.find_or_add("a", "Name three red fruits.") is None
    assert index.find_or_add("b", "name THREE red fruits") == Likest("a", 1.0)
    assert len(index) == 1


def test_texts_shorter_than_a_shingle_and_texts_without_words() -> None:
    index = NearIndex(0.9, permutations=64, shingle_words=5)
    assert index.find_or_add("a", "hi there") is None
    assert index.find_or_add("b", "Hi there!") == Likest("a", 1.0)
    assert index.find_or_add("c", "...") is None
    assert index.find_or_add("d", "???") is None
