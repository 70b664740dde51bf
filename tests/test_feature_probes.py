"""Probes of features whose answer is known: of the scene itself, of noise, and of what only a group gives away."""

import numpy as np
import pytest

from ccim_ray.feature_probes import NEIGHBOURS, linear_probe, neighbour_purity, plane_map

SUBJECTS, CLASSES = 300, 6


def labelled(seed=0, subjects=SUBJECTS, classes=CLASSES):
    class_S = np.random.default_rng(seed).permutation(np.arange(subjects) % classes)
    return class_S, np.eye(classes, dtype=np.float32)[class_S]


def alone(subjects=SUBJECTS):
    return np.array([f"image {number}" for number in range(subjects)])


def noise(width=8, seed=1, subjects=SUBJECTS):
    return np.random.default_rng(seed).normal(size=(subjects, width)).astype(np.float32)


def test_features_that_are_the_class_give_everything():
    _, targets_SK = labelled()
    probe = linear_probe(targets_SK, targets_SK, alone(), multi_label=False)
    assert (probe.value, probe.sd, probe.classes, probe.subjects) == (1.0, 0.0, CLASSES, SUBJECTS)
    assert probe.chance == pytest.approx(1 / CLASSES)
    purity = neighbour_purity(targets_SK, targets_SK, alone())
    assert (purity.value, purity.ci_low, purity.ci_high) == (1.0, 1.0, 1.0)


def test_features_that_are_blind_to_the_class_give_chance():
    _, targets_SK = labelled()
    probe = linear_probe(noise(), targets_SK, alone(), multi_label=False)
    assert abs(probe.value - probe.chance) < 0.06
    purity = neighbour_purity(noise(), targets_SK, alone())
    assert purity.chance_low < purity.chance < purity.chance_high
    assert purity.chance == pytest.approx((SUBJECTS / CLASSES - 1) / (SUBJECTS - 1), abs=0.005)
    assert abs(purity.value - purity.chance) < 0.03
    assert purity.chance_high < 0.25


def test_the_chance_of_a_probe_is_the_most_frequent_class():
    class_S = np.array([0] * 70 + [1] * 30)
    probe = linear_probe(noise(subjects=100), np.eye(2, dtype=np.float32)[class_S], alone(100), multi_label=False)
    assert probe.chance == pytest.approx(0.7)


def test_what_is_linear_is_read_and_what_is_not_is_not():
    class_S, targets_SK = labelled(classes=2)
    linear_SD = noise(2)
    linear_SD[:, 0] += 6 * class_S
    assert linear_probe(linear_SD, targets_SK, alone(), multi_label=False).value > 0.98
    ring_SD = noise(2) / np.linalg.norm(noise(2), axis=1, keepdims=True) * (1 + 4 * class_S[:, None])
    assert linear_probe(ring_SD, targets_SK, alone(), multi_label=False).value < 0.65
    assert neighbour_purity(ring_SD, targets_SK, alone()).value > 0.98


def test_subjects_of_one_group_do_not_tell_on_each_other():
    """Frames of a video share its look and its class; the look of one video says nothing of another's."""
    videos, frames = 60, 5
    class_V = np.arange(videos) % 3
    look_VD = np.random.default_rng(2).normal(size=(videos, 100))
    features_SD = np.repeat(look_VD, frames, axis=0).astype(np.float32)
    targets_SK = np.eye(3, dtype=np.float32)[np.repeat(class_V, frames)]
    by_video = np.repeat([f"video {number}" for number in range(videos)], frames)
    assert linear_probe(features_SD, targets_SK, alone(), multi_label=False).value > 0.95
    assert linear_probe(features_SD, targets_SK, by_video, multi_label=False).value < 0.5
    assert neighbour_purity(features_SD, targets_SK, alone(), neighbours=4).value == 1.0
    assert neighbour_purity(features_SD, targets_SK, by_video, neighbours=4).value < 0.5


def test_classes_with_few_subjects_are_left_out_and_counted():
    class_S = np.array([0] * 50 + [1] * 46 + [2] * 4)
    targets_SK = np.eye(3, dtype=np.float32)[class_S]
    probe = linear_probe(targets_SK, targets_SK, alone(100), multi_label=False)
    assert (probe.classes, probe.subjects, probe.value) == (2, 96, 1.0)
    assert linear_probe(targets_SK[:53], targets_SK[:53], alone(53), multi_label=False) is None


def test_several_labels_are_read_one_by_one():
    generator = np.random.default_rng(3)
    targets_SK = (generator.random((SUBJECTS, 4)) < (0.5, 0.3, 0.2, 0.01)).astype(np.float32)
    targets_SK[targets_SK.sum(1) == 0, 0] = 1
    probe = linear_probe(targets_SK, targets_SK, alone(), multi_label=True)
    assert probe.classes == 3
    assert probe.value == 1.0
    blind = linear_probe(noise(), targets_SK, alone(), multi_label=True)
    assert blind.chance == pytest.approx(targets_SK[:, :3].mean())
    assert abs(blind.value - blind.chance) < 0.08
    assert linear_probe(noise(), np.ones((SUBJECTS, 2), np.float32), alone(), multi_label=True) is None


def test_the_purity_of_several_labels_is_jaccards():
    """Four subjects on a line, each with its neighbour next to it, against sets counted by hand."""
    targets_SK = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 1, 1]], np.float32)
    features_SD = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    purity = neighbour_purity(features_SD, targets_SK, alone(4), neighbours=1)
    assert purity.value == pytest.approx((1 / 2 + 1 / 2 + 1 + 1) / 4)


def test_few_subjects_have_few_neighbours():
    _, targets_SK = labelled(subjects=6, classes=2)
    purity = neighbour_purity(noise(subjects=6), targets_SK, alone(6), neighbours=NEIGHBOURS)
    assert purity.value == pytest.approx(2 / 5)  # all five others, two of them of the same class
    with pytest.raises(ValueError, match="one group"):
        neighbour_purity(noise(subjects=6), targets_SK, np.repeat("video", 6))


def test_another_seed_is_another_draw_and_the_same_one_is_the_same():
    _, targets_SK = labelled()
    features_SD = noise() + targets_SK[:, :1]
    again = [linear_probe(features_SD, targets_SK, alone(), False, seed) for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_the_map_keeps_what_is_apart_apart_and_is_seeded():
    class_S, targets_SK = labelled(subjects=60, classes=3)
    features_SD = 50 * targets_SK + noise(3, subjects=60)
    map_S2 = plane_map(features_SD, seed=0)
    assert map_S2.shape == (60, 2)
    assert np.isfinite(map_S2).all()
    assert neighbour_purity(map_S2, targets_SK, alone(60)).value == 1.0
    np.testing.assert_array_equal(map_S2, plane_map(features_SD, seed=0))
    with pytest.raises(ValueError, match="too few"):
        plane_map(features_SD[:3])
