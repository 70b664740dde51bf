"""Who is right about whom, which cases are drawn, and what is refused before anything is trained."""

import numpy as np
import pytest

from ccim_ray.errors import RequestError
from ccim_ray.inspecting import InspectionFlags
from ccim_ray.inspection import InspectedModel, Outcome, drawn_cases, is_right, outcomes, targets_of
from ccim_ray.plan import make_plan
from ccim_ray.reports.case_counts import compare_cases
from ccim_ray.storage import Storage


def test_with_one_label_right_is_top_1():
    generator = np.random.default_rng(0)
    logits_SK = generator.normal(size=(200, 7)).astype(np.float32)
    class_S = generator.integers(0, 7, 200)
    expected_S = logits_SK.argmax(1) == class_S
    np.testing.assert_array_equal(is_right(logits_SK, np.eye(7, dtype=np.float32)[class_S]), expected_S)
    assert 0 < expected_S.sum() < 200


@pytest.mark.parametrize(
    ("truth", "right"),
    [
        ([1, 0, 0, 0], True),  # asked for one
        ([0, 1, 0, 0], False),
        ([0, 1, 1, 0], True),  # asked for two, and names one of them
        ([0, 0, 1, 1], False),
        ([0, 1, 1, 1], True),  # asked for three, and names two of them
        ([1, 1, 1, 1], True),
    ],
)
def test_with_several_labels_right_is_half_of_them(truth, right):
    logits_SK = np.array([[4.0, 3.0, 2.0, 1.0]], np.float32)
    assert is_right(logits_SK, np.array([truth], np.float32)).tolist() == [right]


def model(setting, seed, class_S, classes=3):
    logits_SK = 5 * np.eye(classes, dtype=np.float32)[class_S]
    return InspectedModel(setting, seed, logits_SK, logits_SK, logits_SK, logits_SK / 5)


def test_counts_are_those_of_plain_counting_and_add_up():
    generator = np.random.default_rng(1)
    truth_S = generator.integers(0, 3, 90)
    answers = [generator.integers(0, 3, 90) for _ in range(4)]
    names = (("vanilla", 0), ("vanilla", 1), ("CCIM", 0), ("CCIM", 1))
    models = [model(*name, answer_S) for name, answer_S in zip(names, answers, strict=True)]
    found = compare_cases(models, np.eye(3, dtype=np.float32)[truth_S])
    pairs = {(counts.first, counts.second): counts for counts in found}
    expected = {("vanilla, seed 0", "CCIM, seed 0"): (0, 2), ("vanilla, seed 1", "CCIM, seed 1"): (1, 3)}
    expected["vanilla, seed 0", "vanilla, seed 1"] = (0, 1)  # what another start of the same training changes
    assert pairs.keys() == expected.keys()
    for names_of_pair, (one, other) in expected.items():
        counts = pairs[names_of_pair]
        first_S, second_S = answers[one] == truth_S, answers[other] == truth_S
        assert counts.subjects == 90
        assert counts.counts == {
            Outcome.BOTH: int((first_S & second_S).sum()),
            Outcome.FIRST: int((first_S & ~second_S).sum()),
            Outcome.SECOND: int((~first_S & second_S).sum()),
            Outcome.NEITHER: int((~first_S & ~second_S).sum()),
        }
        assert counts.p <= counts.p_holm <= 1


def test_models_that_agree_leave_nothing_to_test():
    truth_S = np.arange(30) % 3
    (counts,) = compare_cases([model("vanilla", 0, truth_S), model("CCIM", 0, truth_S)], np.eye(3)[truth_S])
    assert (counts.first, counts.second) == ("vanilla", "CCIM")
    assert counts.counts[Outcome.BOTH] == 30
    assert counts.p is counts.p_holm is None


def test_cases_are_drawn_at_random_by_the_seed_and_as_many_of_both_directions():
    of_subjects = outcomes(np.arange(100) % 2 == 0, np.arange(100) % 3 == 0)
    drawn = drawn_cases(of_subjects, 6, seed=0)
    assert list(drawn) == [Outcome.SECOND, Outcome.FIRST]
    for outcome, places in drawn.items():
        assert len(set(places)) == 6
        assert {of_subjects[place] for place in places} == {outcome}
    assert drawn == drawn_cases(of_subjects, 6, seed=0)
    assert drawn != drawn_cases(of_subjects, 6, seed=1)
    assert {tuple(drawn_cases(of_subjects, 1, seed)[Outcome.FIRST]) for seed in range(40)} > {(2,), (4,)}


def test_the_rarer_direction_limits_both():
    of_subjects = [Outcome.FIRST] * 9 + [Outcome.SECOND] * 2 + [Outcome.BOTH]
    assert {outcome: len(places) for outcome, places in drawn_cases(of_subjects, 6, 0).items()} == {
        Outcome.SECOND: 2,
        Outcome.FIRST: 2,
    }
    assert not any(drawn_cases([Outcome.FIRST] * 4, 6, 0).values())


def test_a_model_intervenes_where_the_classifier_reads_something_else():
    plain = model("vanilla", 0, np.arange(6) % 3)
    assert not plain.intervenes
    changed = InspectedModel("CCIM", 0, plain.joint_SH, plain.joint_SH + 1, plain.logits_SK, plain.probabilities_SK)
    assert changed.intervenes


def test_labels_become_columns_in_alphabetical_order():
    np.testing.assert_array_equal(targets_of(np.array(["park", "farm", "park"])), [[0, 1], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"deconfounders": ("ccim",)}, ["--deconfounders ccim", "two"]),
        ({"deconfounders": ("ccim", "ccim")}, ["--deconfounders", "two different"]),
        ({"sample": 5}, ["--sample 5", "20"]),
        ({"cases": 0}, ["--cases 0"]),
    ],
)
def test_a_wrong_request_is_told_in_one_line_before_anything_is_made(flags, words):
    with pytest.raises(RequestError) as told:
        InspectionFlags(**flags).inspection()
    assert all(word in str(told.value) for word in words), told.value
    assert "\n" not in str(told.value)


def test_the_default_split_is_the_one_where_scenes_say_nothing(small_world, tmp_path):
    def plan_of(**flags):
        base = InspectionFlags(preset="smoke", **flags).experiment().with_changes(dictionary__size=8)
        return make_plan([("CCIM", base)], (0,), Storage(tmp_path), flags.get("data_root"))

    world, folder = plan_of(), plan_of(dataset="caer_s", data_root=small_world, stand_ins=True)
    assert InspectionFlags().inspection().split_of(world) == "test_do"
    assert InspectionFlags(split="val").inspection().split_of(folder) == "val"
    for plan in (world, folder):
        with pytest.raises(RequestError, match=r"--split test: \w+ has train, val, test_id, test_do, test_anti"):
            InspectionFlags(split="test").inspection().split_of(plan)
    assert not list(tmp_path.iterdir())
