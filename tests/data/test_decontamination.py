"""The two rules that keep judged problems out of training: equal but for digits, and a shared run of words."""

from rl_jax.data.text.decontamination import decontaminated, normalised, runs_of_words


def test_numbers_spaces_and_signs_do_not_tell_texts_apart():
    assert normalised("Ann has 12 apples.") == normalised("ann has  7 Apples!") == "annhasapples"
    assert normalised("3+4*5=") == ""


def test_runs_of_words_are_all_windows():
    assert runs_of_words("One, two three. Four", 3) == {("one", "two", "three"), ("two", "three", "four")}
    assert runs_of_words("one two", 3) == set()


def test_what_is_judged_is_not_trained_on():
    judged = ["Tom buys 3 pens.", " ".join(f"w{n}" for n in range(40))]
    same, window = "Tom buys 45 pens", " ".join(["x", *(f"w{n}" for n in range(5, 37)), "y"])
    short = " ".join(f"w{n}" for n in range(5, 36))  # 31 words of it
    assert decontaminated([same, window, short, "Tom sells 3 pens."], judged) == [False, False, True, True]


def test_bare_expressions_are_left_to_an_exact_rule():
    """Without their digits all of them are one."""
    assert decontaminated(["1+2=", "3*4="], ["5+6="]) == [True, True]
