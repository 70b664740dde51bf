"""Metrics against references written as plain loops."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ccim_ray.metrics import (
    MIN_GROUP_SUBJECTS,
    GroupMetric,
    average_precision,
    by_group,
    chance,
    eleven_point_average_precision,
    evaluate,
    evaluate_agents,
    evaluate_groups,
    evaluate_scene_swap,
    worst_group,
)


def test_only_groups_of_enough_subjects_can_be_the_worst():
    sizes = {"large": MIN_GROUP_SUBJECTS, "larger": 30, "small": MIN_GROUP_SUBJECTS - 1}
    right = {"large": 12, "larger": 24, "small": 0}
    groups = [name for name, size in sizes.items() for _ in range(size)]
    targets = np.tile([1, 0], (len(groups), 1))
    scores = np.array(
        [[1.0, 0.0] if number < right[name] else [0.0, 1.0] for name in sizes for number in range(sizes[name])]
    )
    assert evaluate_groups(scores, targets, groups, "ab", False) == {"worst_group": 0.6}
    small = [row for row, name in enumerate(groups) if name == "small"]
    assert evaluate_groups(scores[small], targets[small], ["small"] * len(small), "ab", False) == {}


# Scores from a handful of values, so that most examples have ties.
ranked_subjects = st.lists(
    st.tuples(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]), st.integers(0, 1)), min_size=1, max_size=30
).filter(lambda rows: any(target for _, target in rows))


def operating_points(scores, targets):
    """(recall hits, precision) at every threshold, from the highest; subjects with equal scores together."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        taken = [target for score, target in zip(scores, targets, strict=True) if score >= threshold]
        points.append((sum(taken), sum(taken) / len(taken)))
    return points


@settings(deadline=None)
@given(ranked_subjects)
def test_average_precision_is_the_sum_over_thresholds(rows):
    scores, targets = zip(*rows, strict=True)
    expected, previous = 0.0, 0
    for hits, precision in operating_points(scores, targets):
        expected += (hits - previous) / sum(targets) * precision
        previous = hits
    assert average_precision(np.array(scores), np.array(targets)) == pytest.approx(expected)


@settings(deadline=None)
@given(ranked_subjects)
def test_eleven_point_average_precision_is_the_mean_of_best_precisions(rows):
    scores, targets = zip(*rows, strict=True)
    points = operating_points(scores, targets)
    best = [max(precision for hits, precision in points if 10 * hits >= tenths * sum(targets)) for tenths in range(11)]
    expected = sum(best) / 11
    assert eleven_point_average_precision(np.array(scores), np.array(targets)) == pytest.approx(expected)


def test_eleven_point_counts_a_recall_that_is_reached_exactly():
    # 10 positives at ranks 1-3, then 7 negatives, then the other positives: precision 1 up to recall 0.3.
    targets = np.array([1] * 3 + [0] * 7 + [1] * 7)
    value = eleven_point_average_precision(-np.arange(17.0), targets)
    assert value == pytest.approx((4 + 7 * 10 / 17) / 11)


def test_multi_label_leaves_out_a_category_without_positives():
    scores = np.array([[2.0, 1, 0.5], [1.0, 3, 0.1], [0.0, 2, 0.9]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    result = evaluate(scores, targets, ["Peace", "Doubt/Confusion", "Pain"], multi_label=True)
    assert list(result) == ["mAP", "mAP_11_point", "AP/Peace", "AP/Doubt/Confusion"]
    assert result["AP/Peace"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["AP/Doubt/Confusion"] == 1
    assert result["mAP"] == pytest.approx((5 / 6 + 1) / 2)
    assert all(type(value) is float for value in result.values())


def test_single_label_reports_accuracy_and_recall_of_present_categories():
    targets = np.eye(4)[[0, 0, 0, 1, 2]]
    scores = np.eye(4)[[0, 0, 3, 1, 0]] * 5 - 2
    result = evaluate(scores, targets, ["Angry", "Happy", "Neutral", "Sad"], multi_label=False)
    assert result == pytest.approx({"accuracy": 3 / 5, "recall/Angry": 2 / 3, "recall/Happy": 1, "recall/Neutral": 0})


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), multi_label=st.booleans())
def test_logits_and_probabilities_score_the_same(seed, multi_label):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(20, 3)).round(1)
    targets = rng.integers(0, 2, (20, 3)) if multi_label else np.eye(3)[rng.integers(0, 3, 20)]
    if multi_label:
        probabilities = 1 / (1 + np.exp(-logits))
    else:
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = ["a", "b", "c"]
    assert evaluate(logits, targets, names, multi_label) == evaluate(probabilities, targets, names, multi_label)


def test_chance_is_prevalence_or_the_majority():
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    row = chance(targets, ["a", "b", "c"], multi_label=True)
    assert row == pytest.approx({"mAP": 0.5, "mAP_11_point": row["mAP_11_point"], "AP/a": 0.75, "AP/b": 0.25})
    row = chance(np.eye(4)[[1, 1, 2, 0, 1]], list("abcd"), multi_label=False)
    assert row == pytest.approx({"accuracy": 0.6, "accuracy_uniform": 0.25})


def test_random_scores_come_out_at_chance():
    rng = np.random.default_rng(0)
    targets = (rng.random((20_000, 3)) < [0.05, 0.3, 0.8]).astype(np.float32)
    result = evaluate(rng.normal(size=targets.shape), targets, ["a", "b", "c"], multi_label=True)
    row = chance(targets, ["a", "b", "c"], multi_label=True)
    del row["mAP_11_point"]  # one draw of it may lie far from the mean: the first few ranks decide
    for key, value in row.items():
        assert result[key] == pytest.approx(value, abs=0.02)


def every_order(positives, subjects):
    """Targets of every way to put so many positives into a ranking."""
    for places in itertools.combinations(range(subjects), positives):
        yield np.isin(np.arange(subjects), places).astype(int)


@pytest.mark.parametrize(("positives", "subjects"), [(1, 1), (1, 8), (3, 8), (8, 8), (4, 13)])
def test_chance_of_few_is_the_mean_over_every_order(positives, subjects):
    descending = -np.arange(float(subjects))
    orders = list(every_order(positives, subjects))
    targets = orders[0][:, None]
    row = chance(targets, ["a"], multi_label=True, agents_S=np.arange(subjects).astype(str))
    assert row["mAP_agent"] == row["AP_agent/a"]
    assert row["mAP_agent"] == pytest.approx(np.mean([average_precision(descending, order) for order in orders]))
    eleven_point = np.mean([eleven_point_average_precision(descending, order) for order in orders])
    assert row["mAP_11_point"] == pytest.approx(eleven_point, abs=0.006)
    assert row == chance(targets, ["a"], multi_label=True, agents_S=np.arange(subjects).astype(str))


def test_chance_of_11_points_is_above_the_prevalence():
    targets = np.zeros((2000, 1))
    targets[:40] = 1
    row = chance(targets, ["a"], multi_label=True)
    drawn = np.random.default_rng(1)
    expected = np.mean([eleven_point_average_precision(drawn.random(2000), targets[:, 0]) for _ in range(500)])
    assert row["mAP_11_point"] == pytest.approx(expected, abs=0.003)
    assert row["mAP_11_point"] > 1.2 * row["mAP"]


def test_agents_are_scored_by_the_mean_of_their_frames():
    rng = np.random.default_rng(3)
    names = ["Angry", "Happy", "Neutral", "Sad"]
    agents = np.array([f"video/{agent}" for agent in rng.integers(0, 30, 200)])
    probabilities = rng.random((200, 4))
    targets = (rng.random((200, 4)) < 0.03).astype(np.float32)
    targets[:, 3] = 0
    found = evaluate_agents(probabilities, targets, agents, names)
    scores = pd.DataFrame(probabilities, columns=names).groupby(agents).mean()
    labels = pd.DataFrame(targets, columns=names).groupby(agents).max()
    assert 0 < labels["Angry"].sum() < len(labels) < 200
    expected = {f"AP_agent/{name}": average_precision_score(labels[name], scores[name]) for name in names[:3]}
    assert found == pytest.approx(expected | {"mAP_agent": np.mean(list(expected.values()))})
    by_chance = chance(targets, names, multi_label=True, agents_S=agents)
    assert {key for key in by_chance if "agent" in key} == set(found)


def test_an_agent_of_one_frame_each_is_a_subject():
    rng = np.random.default_rng(0)
    probabilities, targets = rng.random((50, 3)), rng.integers(0, 2, (50, 3))
    found = evaluate_agents(probabilities, targets, np.arange(50).astype(str), ["a", "b", "c"])
    alone = evaluate(probabilities, targets, ["a", "b", "c"], multi_label=True)
    assert found["mAP_agent"] == pytest.approx(alone["mAP"])


def test_logits_are_refused_where_probabilities_are_averaged():
    with pytest.raises(ValueError, match="^values from -1 to 3 are no probabilities"):
        evaluate_agents(np.array([[-1.0], [3.0]]), np.ones((2, 1)), np.array(["a", "a"]), ["x"])


def test_another_scene_changes_what_was_counted_by_hand():
    own = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    swapped = np.array([[0.3, 0.6, 0.1], [0.1, 0.1, 0.8], [0.5, 0.4, 0.1], [0.0, 0.0, 1.0]])
    # The first and the last change their category; distances are 0.3, 0.2, 0 and 0.9.
    assert evaluate_scene_swap(own, swapped, multi_label=False) == pytest.approx({"flip_rate": 0.5, "scene_tv": 0.35})
    own, swapped = np.array([[0.9, 0.2], [0.4, 0.3]]), np.array([[0.9, 1.0], [0.5, 0.0]])
    found = evaluate_scene_swap(own, swapped, multi_label=True)
    assert found == pytest.approx({"flip_rate": 0.5, "scene_tv": (0.8 / 2 + 0.4 / 2) / 2})


two_answers = st.integers(1, 12).flatmap(
    lambda count: st.tuples(
        *(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=count, max_size=count) for _ in "ab")
    )
)


@settings(deadline=None)
@given(two_answers, st.booleans())
def test_scene_swap_is_a_distance_that_a_model_blind_to_the_scene_has_none_of(answers, multi_label):
    own, swapped = (np.array(answer) + 1e-6 for answer in answers)
    scale = 1.00001 if multi_label else None
    own, swapped = (answer / (scale or answer.sum(1, keepdims=True)) for answer in (own, swapped))
    found = evaluate_scene_swap(own, swapped, multi_label)
    assert set(found) == {"flip_rate", "scene_tv"}
    assert all(0 <= value <= 1 for value in found.values())
    assert evaluate_scene_swap(swapped, own, multi_label) == pytest.approx(found)
    assert evaluate_scene_swap(own, own, multi_label) == {"flip_rate": 0, "scene_tv": 0}
    order = np.arange(len(own))[::-1]
    assert evaluate_scene_swap(own[order], swapped[order], multi_label) == pytest.approx(found)
    per_subject = [evaluate_scene_swap(own[[row]], swapped[[row]], multi_label) for row in order]
    assert np.mean([one["scene_tv"] for one in per_subject]) == pytest.approx(found["scene_tv"])
    assert np.mean([one["flip_rate"] for one in per_subject]) == pytest.approx(found["flip_rate"])


def test_a_model_of_the_scene_alone_changes_every_answer_where_scenes_favour_different_categories():
    scene, other = np.array([0, 1, 2, 0]), np.array([1, 2, 0, 2])
    assert evaluate_scene_swap(np.eye(3)[scene], np.eye(3)[other], False) == {"flip_rate": 1, "scene_tv": 1}


@pytest.mark.parametrize(
    ("own", "swapped", "multi_label", "message"),
    [
        (np.full((2, 2), 0.5), np.full((3, 2), 0.5), False, "alike"),
        (np.array([[1.5, -0.5]]), np.array([[0.5, 0.5]]), False, "values from -0.5 to 1.5 are no probabilities"),
        (np.array([[0.5, 0.5]]), np.array([[0.9, 0.9]]), False, "do not add to 1"),
        (np.array([[0.5, np.nan]]), np.array([[0.9, 0.9]]), True, "are no probabilities"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(own, swapped, multi_label, message):
    with pytest.raises(ValueError, match=message):
        evaluate_scene_swap(own, swapped, multi_label)
    assert evaluate_scene_swap(np.zeros((0, 2)), np.zeros((0, 2)), multi_label) == {}


def test_groups_are_scored_apart_and_the_worst_is_found():
    names = ["Happy", "Sad"]
    targets = np.eye(2)[[0, 0, 1, 1, 0, 1]]
    scores = np.eye(2)[[0, 0, 1, 0, 1, 0]]
    groups = ["park", "park", "park", "ward", "ward", None]
    found = by_group(scores, targets, groups, names, multi_label=False)
    assert found == {"park": GroupMetric(1.0, 3), "ward": GroupMetric(0.0, 2)}
    assert worst_group(found, min_subjects=2) == ("ward", GroupMetric(0.0, 2))
    assert worst_group(found, min_subjects=3) == ("park", GroupMetric(1.0, 3))
    assert worst_group(found, min_subjects=4) is None


def test_a_group_has_the_map_of_its_own_subjects():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(40, 3)), rng.integers(0, 2, (40, 3))
    targets[30:] = 0
    groups = [f"scene {row // 10}" for row in range(40)]
    found = by_group(scores, targets, groups, ["a", "b", "c"], multi_label=True)
    assert set(found) == {"scene 0", "scene 1", "scene 2"}
    for k in range(3):
        rows = slice(10 * k, 10 * k + 10)
        alone = evaluate(scores[rows], targets[rows], ["a", "b", "c"], multi_label=True)
        assert found[f"scene {k}"] == GroupMetric(alone["mAP"], 10)


@pytest.mark.parametrize(
    ("scores", "targets", "multi_label", "message"),
    [
        (np.zeros((3, 2)), np.ones((2, 2)), True, "alike"),
        (np.zeros((3, 3)), np.ones((3, 3)), True, "3 columns for 2 categories"),
        (np.array([[np.nan, 1], [np.inf, 0]]), np.ones((2, 2)), True, "^2 of 4 scores are NaN or infinite"),
        (np.zeros((2, 2)), np.full((2, 2), 0.5), True, "0 or 1"),
        (np.zeros((2, 2)), np.zeros((2, 2)), True, "none of 2 subjects has a category"),
        (np.zeros((0, 2)), np.zeros((0, 2)), False, "none of 0 subjects"),
        (np.zeros((2, 2)), np.array([[1, 1], [1, 0]]), False, "^1 of 2 subjects do not have exactly one"),
    ],
)
def test_refuses_arrays_that_cannot_be_scored(scores, targets, multi_label, message):
    with pytest.raises(ValueError, match=message):
        evaluate(scores, targets, ["a", "b"], multi_label)


def test_refuses_groups_of_another_length():
    with pytest.raises(ValueError, match="1 groups for 2 subjects"):
        by_group(np.zeros((2, 2)), np.eye(2), ["park"], ["a", "b"], multi_label=False)
