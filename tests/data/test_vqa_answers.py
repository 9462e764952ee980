import random

import pytest

from pictura.data.vqa_answers import accuracy, normalised, soft_scores, vocabulary


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("Yes", "yes"),
        ("  two\tdogs\n", "2 dogs"),
        ("none", "0"),
        ("zero", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("a dog and the cat", "dog and cat"),
        ("An apple", "apple"),
        ("the", ""),
        ("", ""),
        ("dont", "don't"),
        ("Dont know", "don't know"),
        ("shouldnt've", "shouldn't've"),
        ("shouldn'tve", "shouldn't've"),
        ("shouldntve", "shouldntve"),
        ("oclock", "o'clock"),
        ("yalld've", "yalld've"),
        ("y'alld've", "y'all'd've"),
        ("it's", "it's"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("black, white", "black white"),
        ("t-shirt", "t shirt"),
        ("t- shirt", "t shirt"),
        ("(left)", "left"),
        ("what?", "what"),
        ("10:30", "10:30"),
        ("$5", "$5"),
        ("50%", "50%"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("u.s.", "us"),
    ],
)
def test_answers_are_cleaned(answer: str, cleaned: str) -> None:
    assert normalised(answer) == cleaned


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("3.", "3"),  # the official pattern means to spare it, and does not
        ("1,000", "1000"),
        ("1,000-2", "10002"),  # without the comma "1000-2" is "1000 2"
        ("1000-2", "1000 2"),
        ("a-b, c-d -e", "ab cd e"),  # one loose mark makes all of its kind vanish
        ("Im", "im"),
        ("shes", "shes"),
        ("somebody'd", "somebodyd"),
        ("ow's'at", "'ow's'at"),
    ],
)
def test_the_official_oddities_are_kept(answer: str, cleaned: str) -> None:
    assert normalised(answer) == cleaned


def naive(predicted: str, humans: list[str]) -> float:
    """Clean words only, so that cleaning changes nothing: leave each person out in turn."""
    total = 0.0
    for left_out in range(len(humans)):
        others = humans[:left_out] + humans[left_out + 1 :]
        total += min(1, sum(other == predicted for other in others) / 3)
    return total / len(humans)


def test_accuracy_is_the_average_over_the_sets_with_one_person_left_out() -> None:
    random_ = random.Random(5)
    for _ in range(300):
        humans = random_.choices(["yes", "no", "dog", "red"], k=random_.choice([1, 2, 5, 10]))
        for predicted in ("yes", "no", "dog", "red", "cat"):
            assert accuracy(predicted, humans) == pytest.approx(naive(predicted, humans), abs=1e-12)


def test_accuracy_by_hand() -> None:
    humans = ["red"] * 3 + ["blue"] * 2 + ["pink"] + ["grey"] * 4
    assert [accuracy(word, humans) for word in ("cat", "pink", "blue", "red", "grey")] == pytest.approx(
        [0, 0.3, 0.6, 0.9, 1]
    )
    assert accuracy(" The RED.", humans) == pytest.approx(0.9)
    assert accuracy("2", ["two"] * 4 + ["dog"] * 6) == 1
    assert accuracy("two", ["2"] * 4 + ["dog"] * 6) == 1
    with pytest.raises(ValueError, match="at least one person"):
        accuracy("red", [])


def test_where_all_people_agree_nothing_is_cleaned() -> None:
    assert accuracy("two", [" two\n"] * 10) == 1
    assert accuracy("2", ["two"] * 10) == 0


def test_soft_scores_are_the_accuracies_of_ten_people() -> None:
    humans = ["red"] * 3 + ["pink"] + ["blue"] * 2 + ["grey"] * 4
    scores = soft_scores(humans)
    assert list(scores) == ["grey", "red", "blue", "pink"]
    for answer, score in scores.items():
        assert score == pytest.approx(accuracy(answer, humans))
    assert soft_scores(["b", "", "a", "c", "c"]) == {"c": 0.6, "a": 0.3, "b": 0.3}
    assert list(soft_scores(["b", "", "a", "c", "c"])) == ["c", "a", "b"]


def test_the_vocabulary_counts_the_most_common_answer_of_each_question() -> None:
    questions = [{"yes": 1.0, "no": 0.3}] * 4 + [{"no": 0.9, "yes": 0.6}] * 3 + [{"a": 0.3}, {"b": 0.3}, {}, {"b": 1.0}]
    assert vocabulary(questions, least=1) == ("yes", "no", "b", "a")
    assert vocabulary(questions, least=3) == ("yes", "no")
    assert vocabulary(iter([{"b": 1.0}, {"a": 1.0}]), least=1) == ("a", "b")


def test_six_against_four_counts_for_the_six() -> None:
    scores = soft_scores(["yes"] * 6 + ["no"] * 4)
    assert scores == {"yes": 1.0, "no": 1.0}
    assert vocabulary([scores], least=1) == ("yes",)


def test_nine_is_the_least_by_default() -> None:
    assert vocabulary([{"red": 1.0}] * 9 + [{"blue": 1.0}] * 8) == ("red",)
    with pytest.raises(ValueError, match="at least 9 questions; the most frequent is that of 8; lower `least`"):
        vocabulary([{"blue": 1.0}] * 8)
    with pytest.raises(ValueError, match="there are no answers"):
        vocabulary([])
