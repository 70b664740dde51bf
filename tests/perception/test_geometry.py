"""Boxes and points of a subject against values worked out by hand, whatever the size of the picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccim_ray.datasets.images import resize_and_crop
from ccim_ray.datasets.subject import Subject
from ccim_ray.perception.architectures import architecture
from ccim_ray.perception.geometry import agents_of, geometry_of, keypoints_of, regions_of

WHOLE, CROPPED = architecture("thin_resnet"), architecture("resnet18")  # 64 of 64, 224 of 256
GRID = [(x, y, x + 0.5, y + 0.5) for y in (0.25, 0.0, 0.5) for x in (0.25, 0.0, 0.5)]


def subject(**changes):
    values = {
        "subject_id": "s",
        "image": "a.png",
        "width": 200,
        "height": 100,
        "split": "train",
        "body_box": (50.0, 20.0, 90.0, 100.0),
        "labels": ("Sad",),
        "box_source": "annotation",
    }
    return Subject(**values | changes)


def test_keypoints_are_relative_to_the_body_box_and_unknown_ones_are_zeros():
    points = [(float("nan"), float("nan"))] * 18
    points[0], points[4], points[17] = (50.0, 20.0), (80.0, 60.0), (100.0, 10.0)
    found = keypoints_of(subject(keypoints=tuple(points)))
    assert found.shape == (18, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[[0, 4, 17]], [(0, 0, 1), (0.75, 0.5, 1), (1.25, -0.125, 1)], atol=1e-6)
    assert not np.delete(found, [0, 4, 17], axis=0).any()


def test_without_keypoints_all_rows_are_zeros():
    assert not keypoints_of(subject()).any()


def test_agents_are_the_subject_then_the_others_nearest_first_then_zeros():
    # Centres: own (70, 60); others 12, 58.3 and 98.5 pixels away.
    near, middle, far = (60.0, 8.0, 80.0, 88.0), (100.0, 0.0, 140.0, 60.0), (160.0, 50.0, 176.0, 70.0)
    found = agents_of(subject(other_boxes=(far, near, middle)))
    assert found.shape == (9, 5)
    assert found.dtype == np.float32
    expected = [
        (0.25, 0.2, 0.45, 1.0, 1.0),
        (0.3, 0.08, 0.4, 0.88, 1.0),
        (0.5, 0.0, 0.7, 0.6, 1.0),
        (0.8, 0.5, 0.88, 0.7, 1.0),
    ]
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)
    assert not found[4:].any()


def test_of_a_crowd_the_nearest_eight_are_agents_and_the_nearest_nine_regions():
    crowd = [(80.0 + 10 * k, 50.0, 90.0 + 10 * k, 60.0) for k in range(11)]
    of = subject(other_boxes=tuple(reversed(crowd)))
    np.testing.assert_allclose(agents_of(of)[1:, 0] * 200, [box[0] for box in crowd[:8]], rtol=1e-6)
    regions = regions_of(of, WHOLE)
    np.testing.assert_allclose(regions[:9, 0] * 200, [box[0] for box in crowd[:9]], rtol=1e-6)
    np.testing.assert_array_equal(regions[9], (0, 0, 1, 1))


def test_at_equal_distance_the_order_of_the_annotation_does_not_matter():
    left, right = (30.0, 20.0, 70.0, 100.0), (70.0, 20.0, 110.0, 100.0)
    one, other = (agents_of(subject(other_boxes=boxes)) for boxes in ((left, right), (right, left)))
    np.testing.assert_array_equal(one, other)


def test_regions_without_other_people_are_windows_and_the_whole_picture():
    found = regions_of(subject(), CROPPED)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [*GRID, (0.0, 0.0, 1.0, 1.0)])


def test_regions_are_relative_to_the_centre_that_the_network_is_shown():
    # 200 x 100 pixels become 256 x 256; of those, 16 to 240 are shown: (v / size * 256 - 16) / 224.
    inside, across, beside = (50.0, 20.0, 150.0, 80.0), (100.0, 0.0, 200.0, 50.0), (0.0, 0.0, 12.5, 100.0)
    of = subject(other_boxes=(inside, across, beside))
    found = regions_of(of, CROPPED)
    centre = ((64 - 16) / 224, (51.2 - 16) / 224, (192 - 16) / 224, (204.8 - 16) / 224)
    np.testing.assert_allclose(found[0], centre, rtol=1e-6)
    np.testing.assert_allclose(found[1], (112 / 224, 0.0, 1.0, 112 / 224), rtol=1e-6)
    np.testing.assert_array_equal(found[2:], [*GRID[:7], (0.0, 0.0, 1.0, 1.0)])  # no row for what is not shown
    np.testing.assert_allclose(regions_of(of, WHOLE)[0], (0.25, 0.2, 0.75, 0.8), rtol=1e-6)


@pytest.mark.parametrize("arch", [WHOLE, CROPPED])
def test_a_region_is_where_its_person_stands_in_the_framed_picture(arch):
    box = (100, 30, 160, 90)
    image = np.zeros((100, 200, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    framed = resize_and_crop(image, arch.resize_to, arch.input_size)[:, :, 0] > 127
    rows, columns = np.flatnonzero(framed.any(1)), np.flatnonzero(framed.any(0))
    drawn = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / arch.input_size
    region = regions_of(subject(other_boxes=(tuple(map(float, box)),)), arch)[0]
    np.testing.assert_allclose(region, drawn, atol=1 / arch.input_size)


@st.composite
def boxes(draw, width, height):
    x1 = draw(st.floats(0, width - 1))
    y1 = draw(st.floats(0, height - 1))
    return x1, y1, draw(st.floats(x1 + 1, width)), draw(st.floats(y1 + 1, height))


@st.composite
def subjects(draw):
    width, height = draw(st.integers(8, 2000)), draw(st.integers(8, 2000))
    points = st.tuples(st.floats(0, width) | st.just(float("nan")), st.floats(0, height))
    return subject(
        width=width,
        height=height,
        body_box=draw(boxes(width, height)),
        other_boxes=tuple(draw(st.lists(boxes(width, height), max_size=12))),
        keypoints=draw(st.none() | st.lists(points, min_size=18, max_size=18).map(tuple)),
    )


@settings(max_examples=80, deadline=None)
@given(subjects(), st.sampled_from([WHOLE, CROPPED]))
def test_every_picture_gives_tensors_of_one_form_within_their_range(of, arch):
    agents, regions = geometry_of("agents", of, arch), geometry_of("regions", of, arch)
    assert agents.shape == (9, 5)
    present = agents[:, 4] == 1
    assert present.sum() == min(9, 1 + len(of.other_boxes))
    assert not agents[~present].any()
    assert (present[:-1] >= present[1:]).all()
    assert regions.shape == (10, 4)
    assert (regions[:, :2] <= regions[:, 2:]).all()
    assert regions[9].tolist() == [0, 0, 1, 1]
    for values in (agents, regions):
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() <= 1
    points = geometry_of("keypoints", of, arch)
    assert points.shape == (18, 3)
    assert np.isfinite(points).all()
    assert not points[points[:, 2] == 0].any()


@settings(max_examples=40, deadline=None)
@given(subjects(), st.integers(2, 5))
def test_the_same_scene_in_a_larger_picture_gives_the_same_tensors(of, factor):
    def scaled(box):
        return tuple(factor * value for value in box)

    larger = subject(
        width=factor * of.width,
        height=factor * of.height,
        body_box=scaled(of.body_box),
        other_boxes=tuple(map(scaled, of.other_boxes)),
        keypoints=of.keypoints and tuple(map(scaled, of.keypoints)),
    )
    for view in ("agents", "regions", "keypoints"):
        np.testing.assert_allclose(geometry_of(view, larger, WHOLE), geometry_of(view, of, WHOLE), rtol=1e-4, atol=1e-5)
