"""The same person in another scene: what must stay, what must change, and that no real dataset's reader sees it."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.causal_model import CausalModel
from ccim_ray.datasets.confounded_scenes.counterfactuals import COUNTERFACTUALS_FILE, load_counterfactuals
from ccim_ray.datasets.confounded_scenes.loader import load_confounded_scenes
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import is_complete, write_world
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.errors import RequestError

LOADERS = {"caer_s": load_caer_s, "emotic": load_emotic, "groupwalk": load_groupwalk}
SIDE = 96
CAUSED_BY_THE_SCENE = {"scene_names", "scene_N", "object_NA"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    made = {like: tmp_path_factory.mktemp(like) for like in LOADERS}
    for like, root in made.items():
        write_world(WorldSettings(like=like, images=100, image_size=SIDE), root)
    return made


def pairs(dataset):
    by_id = {subject.subject_id: subject for subject in dataset.subjects}
    return [(by_id[s.counterfactual_of], s) for s in dataset.subjects if s.counterfactual_of is not None]


def pixels(root, path):
    with Image.open(root / path) as picture:
        return np.asarray(picture).astype(int)


def inner_body(subject):
    """Pixels that the subject covers whatever stands behind: the middle of the torso and of the head."""
    mask = Image.new("1", (subject.width, subject.height))
    draw = ImageDraw.Draw(mask)
    torso = np.array([subject.keypoints[point] for point in (2, 5, 11, 8)])
    centre = torso.mean(0)
    draw.polygon([tuple(centre + 0.6 * (corner - centre)) for corner in torso], fill=1)
    x1, y1, x2, y2 = subject.face_box
    draw.ellipse((x1 + 3, y1 + 3, x2 - 4, y2 - 4), fill=1)
    return np.asarray(mask)


worlds = st.builds(WorldSettings, like=st.sampled_from(list(LOADERS)), bias=st.floats(0, 1), seed=st.integers(0, 99))


@given(worlds, st.integers(2, 60), st.data())
@hypothesis_settings(max_examples=30, deadline=None)
def test_only_the_scene_and_what_it_causes_differ(settings, size, data):
    model, count = CausalModel(settings), data.draw(st.integers(1, size))
    own, others = model.draw("test_do", size).rows(0, count), model.counterfactuals(count, size)
    assert len(others) == count
    assert (others.scene_N != own.scene_N).all()
    for name in set(own.__slots__) - CAUSED_BY_THE_SCENE:
        np.testing.assert_array_equal(getattr(others, name), getattr(own, name), err_msg=name)


def test_other_scenes_follow_their_prior_and_bring_their_own_objects():
    model = CausalModel(WorldSettings())
    own, others = model.draw("test_do", 20_000), model.counterfactuals(20_000, 20_000)
    counts_Z = np.bincount(others.scene_N, minlength=36)
    # P(z') = sum over z of P(z) P(z' | z' is not z)
    prior_Z = model.scene_prior_Z
    expected_Z = prior_Z * ((prior_Z / (1 - prior_Z)).sum() - prior_Z / (1 - prior_Z))
    assert np.abs(counts_Z / 20_000 - expected_Z).max() < 0.006
    kept = (own.object_NA == others.object_NA).mean()
    assert 0.2 < kept < 0.5  # those that belong to the emotion, and those that both scenes have
    shares_O = np.bincount(others.object_NA[others.scene_N == 0].ravel(), minlength=16) / (3 * counts_Z[0])
    linked_O = model.object_given_emotion_EO[others.emotion_N[others.scene_N == 0]].mean(0)
    assert np.abs(shares_O - (0.2 * linked_O + 0.8 * model.object_given_scene_ZO[0])).max() < 0.05


@pytest.mark.parametrize("like", LOADERS)
def test_the_subject_and_all_annotations_stay_and_the_rest_of_the_picture_changes(roots, like):
    root = roots[like]
    found = pairs(load_confounded_scenes(root))
    assert len(found) == 13
    allowed = 0 if like == "caer_s" else 25  # JPEG mixes neighbours; PNG keeps every pixel
    for own, other in found:
        assert (own.split, other.split) == ("test_do", "counterfactual")
        assert own.scene != other.scene
        for name in ("body_box", "face_box", "other_boxes", "keypoints", "labels", "width", "height", "box_source"):
            assert getattr(own, name) == getattr(other, name), name
        before, after = pixels(root, own.image), pixels(root, other.image)
        body = inner_body(own)
        assert body.sum() > 60
        assert np.abs(before - after)[body].max() <= allowed
        x1, y1, x2, y2 = map(round, own.body_box)
        around = np.ones(body.shape, bool)
        around[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = False
        assert (np.abs(before - after).max(2)[around] > 8).mean() > 0.5
        assert pixels(root, other.depth).shape == (SIDE, SIDE)


@pytest.mark.parametrize("like", LOADERS)
def test_a_reader_of_the_real_format_sees_none_of_them(roots, like):
    real = LOADERS[like](roots[like])
    assert len(real.subjects) == 100
    assert {kind for kind in real.defects.counts if kind != "category without pictures"} == set()
    assert all(subject.counterfactual_of is None for subject in real.subjects)
    assert not any("counterfactual" in subject.image for subject in real.subjects)


def test_a_limit_keeps_pairs_whole(roots):
    dataset = load_confounded_scenes(roots["caer_s"])
    limited = dataset.limited(9)
    assert len(pairs(limited)) == sum(subject.split == "test_do" for subject in limited.subjects) == 9
    ids = {subject.subject_id for subject in limited.subjects}
    assert [s for s in dataset.subjects if s.subject_id in ids] == list(limited.subjects)


def test_at_most_three_hundred_subjects_are_painted_again():
    assert WorldSettings(images=1_000).counterfactuals == 130
    assert WorldSettings(images=20_000).counterfactuals == 300
    assert WorldSettings(images=20_000).pictures == 20_300


def test_a_missing_or_damaged_table_is_told_in_one_line_and_the_world_is_made_again(tmp_path):
    settings = WorldSettings(images=50, image_size=64)
    write_world(settings, tmp_path)
    content = (tmp_path / COUNTERFACTUALS_FILE).read_bytes()
    for damage in (b"PAR1 damaged PAR1", None):
        (tmp_path / COUNTERFACTUALS_FILE).unlink()
        if damage:
            (tmp_path / COUNTERFACTUALS_FILE).write_bytes(damage)
        with pytest.raises(
            RequestError, match=r"counterfactuals.parquet: cannot be read .*; make the world again"
        ) as told:
            load_confounded_scenes(tmp_path)
        assert "\n" not in str(told.value)
    assert not is_complete(settings, tmp_path)
    write_world(settings, tmp_path)
    assert (tmp_path / COUNTERFACTUALS_FILE).read_bytes() == content


def test_the_digest_covers_the_table(tmp_path):
    write_world(WorldSettings(images=50, image_size=64), tmp_path)
    before = load_confounded_scenes(tmp_path)
    pq.write_table(load_counterfactuals(tmp_path).slice(1), tmp_path / COUNTERFACTUALS_FILE)
    after = load_confounded_scenes(tmp_path)
    assert len(pairs(after)) == len(pairs(before)) - 1
    assert after.annotation_digest != before.annotation_digest
