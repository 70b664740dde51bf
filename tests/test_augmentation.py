"""Every view of a subject is mirrored alike, and colours change only where there are any."""

import numpy as np
import pytest
import torch

from ccim_ray.augmentation import augment, mirrored, recoloured
from ccim_ray.datasets.subject import Subject
from ccim_ray.perception.architectures import architecture, frame_view
from ccim_ray.perception.geometry import geometry_of

ARCH = architecture("thin_resnet")
SIDE = 64
PICTURES = ("context", "masked_context", "body", "face", "face_hidden_context", "depth")
GEOMETRY = ("keypoints", "agents", "regions")
JOINTS = (
    *("nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist"),
    *("right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle"),
    *("right eye", "left eye", "right ear", "left ear"),
)
"""In the OpenPose COCO order."""


def random_views(batch=16, seed=0):
    """Pictures of noise, and boxes and points of random people; the last joints and agents are unknown."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(count):
        corners = torch.rand(batch, count, 2, 2, generator=generator).sort(2).values
        return corners.flatten(2)

    shape = (batch, SIDE, SIDE, 3)
    views = {name: torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for name in PICTURES}
    keypoints = torch.cat([torch.rand(batch, 18, 2, generator=generator), torch.ones(batch, 18, 1)], 2)
    keypoints[:, 3] = 0
    agents = torch.cat([boxes(9), torch.ones(batch, 9, 1)], 2)
    agents[:, 5:] = 0
    return views | {"keypoints": keypoints, "agents": agents, "regions": boxes(10)}


@pytest.mark.parametrize("name", [*PICTURES, *GEOMETRY])
def test_mirroring_twice_is_the_identity_and_once_is_not(name):
    view = random_views()[name]
    before = view.clone()
    once = mirrored(name, view)
    assert (once.dtype, once.shape) == (view.dtype, view.shape)
    assert (once != view).any()
    torch.testing.assert_close(mirrored(name, once), view, rtol=0, atol=1e-6)
    assert torch.equal(view, before)


def test_what_is_known_of_the_context_stays_as_it_is():
    views = random_views()
    context = {"cluster": torch.arange(16), "context_features": torch.rand(16, 5)}
    before = {name: rows.clone() for name, rows in context.items()}
    changed = augment(views | context, "flip_colour")
    assert all(torch.equal(changed[name], rows) for name, rows in before.items())
    torch.manual_seed(3)
    alone = augment(views, "flip_colour")
    torch.manual_seed(3)
    together = augment(views | context, "flip_colour")
    assert all(torch.equal(rows, together[name]) for name, rows in alone.items())


def test_left_joints_become_right_joints():
    keypoints = random_views(batch=1)["keypoints"]
    keypoints[:] = torch.cat([torch.rand(18, 2), torch.ones(18, 1)], 1)
    found = mirrored("keypoints", keypoints)[0]
    for k, joint in enumerate(JOINTS):
        side = {"left": "right", "right": "left"}.get(joint.split()[0], "")
        other = JOINTS.index(f"{side} {joint.split()[-1]}".strip())
        x, y, known = keypoints[0, other].tolist()
        assert found[k].tolist() == pytest.approx([1 - x, y, known])


def test_what_is_unknown_stays_zero():
    views = random_views()
    keypoints = mirrored("keypoints", views["keypoints"])
    assert not keypoints[:, 6].any()  # the left elbow, now that the right one is unknown
    assert (keypoints[:, 3, 2] == 1).all()
    assert not mirrored("agents", views["agents"])[:, 5:].any()


def marked_subject():
    """A subject with a white block on its right elbow and a person beside, on black; and that picture."""
    image = np.zeros((96, 128, 3), np.uint8)
    image[40:48, 30:38] = 255
    points = [(float("nan"), float("nan"))] * 18
    points[JOINTS.index("right elbow")] = (34.0, 44.0)
    return image, Subject(
        subject_id="s",
        image="a.png",
        width=128,
        height=96,
        split="train",
        body_box=(20.0, 20.0, 76.0, 76.0),
        labels=("Sad",),
        box_source="annotation",
        other_boxes=((30.0, 40.0, 38.0, 48.0),),
        keypoints=tuple(points),
    )


def centre_of_white(picture):
    rows, columns = torch.nonzero(picture[:, :, 0] > 127, as_tuple=True)
    return [(float(found.float().mean()) + 0.5) / SIDE for found in (columns, rows)]


@pytest.mark.parametrize("turned", [False, True])
def test_points_and_boxes_stay_on_what_they_mark(turned):
    image, subject = marked_subject()
    views = {name: torch.from_numpy(frame_view(name, image, subject, ARCH))[None] for name in ("context", "body")}
    views |= {name: torch.from_numpy(geometry_of(name, subject, ARCH))[None] for name in GEOMETRY}
    if turned:
        views = {name: mirrored(name, view) for name, view in views.items()}
    x, y = centre_of_white(views["context"][0])
    for name, row in (("agents", 1), ("regions", 0)):
        x1, y1, x2, y2 = views[name][0, row, :4].tolist()
        assert [(x1 + x2) / 2, (y1 + y2) / 2] == pytest.approx([x, y], abs=1 / SIDE)
    # The body crop is the box with a margin of 6 %, so that its centre is the box's.
    joint = JOINTS.index("left elbow" if turned else "right elbow")
    x, y = centre_of_white(views["body"][0])
    in_crop = (views["keypoints"][0, joint, :2] - 0.5) / 1.06 + 0.5
    assert in_crop.tolist() == pytest.approx([x, y], abs=1 / SIDE)
    assert views["keypoints"][0, :, 2].sum() == 1


def test_a_random_half_is_mirrored_every_view_of_a_subject_alike():
    views = random_views(batch=400)
    torch.manual_seed(0)
    found = augment(views, "flip")
    assert found.keys() == views.keys()
    mirrored_B = torch.tensor([bool((a != b).any()) for a, b in zip(found["context"], views["context"], strict=True)])
    assert 0.4 < mirrored_B.float().mean() < 0.6
    for name, view in views.items():
        whole = mirrored(name, view)
        assert torch.equal(found[name][mirrored_B], whole[mirrored_B])
        assert torch.equal(found[name][~mirrored_B], view[~mirrored_B])


@pytest.mark.parametrize("kind", ["flip", "flip_colour"])
def test_what_is_drawn_depends_on_the_seed_alone(kind):
    def drawn(seed):
        torch.manual_seed(seed)
        return augment(random_views(), kind)

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["context"], other["context"])


def test_none_changes_nothing_and_draws_nothing():
    views = random_views()
    before = torch.get_rng_state()
    found = augment(views, "none")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(found[name], view) for name, view in views.items())


def test_colours_change_alike_in_all_pictures_of_a_subject_and_never_in_depth_or_geometry():
    views = random_views()
    views["body"] = views["context"]
    torch.manual_seed(1)
    flipped = augment(views, "flip")
    torch.manual_seed(1)
    found = augment(views, "flip_colour")
    for name in (*GEOMETRY, "depth"):
        assert torch.equal(found[name], flipped[name])
    for name in set(PICTURES) - {"depth"}:
        assert all((a != b).any() for a, b in zip(found[name], flipped[name], strict=True))
    assert torch.equal(found["body"], found["context"])


def test_factors_of_one_leave_the_colours():
    picture = random_views()["context"]
    assert torch.equal(recoloured(picture, torch.ones(len(picture), 3)), picture)


def test_each_factor_does_its_part():
    picture = random_views(batch=1)["context"] // 2 + 40
    luma = torch.tensor([0.299, 0.587, 0.114])

    def changed(*factors):
        return recoloured(picture, torch.tensor([factors])).float()

    plain = picture.float()
    torch.testing.assert_close(changed(1.2, 1, 1), plain * 1.2, rtol=0, atol=0.51)
    assert changed(1, 0, 1) == pytest.approx(float((plain @ luma).mean()), abs=0.51)
    grey = changed(1, 1, 0)
    torch.testing.assert_close(grey, (plain @ luma)[..., None].expand_as(grey), rtol=0, atol=0.51)
    torch.testing.assert_close(changed(1, 1.3, 1).std(), plain.std() * 1.3, rtol=0.02, atol=0)
    assert changed(9, 1, 1).max() == 255
