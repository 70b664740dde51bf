"""Training of the stand-ins, in small: what they learn from, and that equal seeds give equal networks."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ccim_ray.datasets.confounded_scenes.objects import OBJECT_NAMES
from ccim_ray.datasets.confounded_scenes.scenes import SCENE_NAMES
from ccim_ray.perception.stand_ins import Recipe, draw_pictures, pretrain, save_stand_in
from ccim_ray.perception.weight_files import STAND_IN_OUTPUTS, STAND_INS


@pytest.fixture(scope="module")
def pictures():
    return draw_pictures(240, seed=1)


def test_heads_have_one_output_for_each_name():
    assert STAND_IN_OUTPUTS["scenes"] == len(SCENE_NAMES)
    assert STAND_IN_OUTPUTS["objects"] == len(OBJECT_NAMES)


def test_expressions_are_standardised_and_independent_of_scenes(pictures):
    expression_ND = pictures.expression_ND
    np.testing.assert_allclose(expression_ND.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(expression_ND.std(0), 1, atol=1e-4)
    indicator_NZ = np.eye(len(SCENE_NAMES))[pictures.scene_N]
    present_Z = indicator_NZ.sum(0) > 0
    means_ZD = (indicator_NZ.T @ expression_ND)[present_Z] / indicator_NZ.sum(0)[present_Z, None]
    between = (indicator_NZ.sum(0)[present_Z, None] * means_ZD**2).sum(0) / len(expression_ND)
    # Independent scenes explain about (Z - 1) / N = 0.15 of the variance; biased ones a multiple of it.
    assert between.mean() < 0.22
    assert 0 < (~pictures.face_visible_N).mean() < 0.2


def test_pictures_show_something(pictures):
    for images in (pictures.contexts, pictures.bodies, pictures.objects):
        assert images.shape == (240, 64, 64, 3)
        assert images.reshape(240, -1).std(1).min() > 5
        assert len(np.unique(images.reshape(240, -1), axis=0)) == 240


@pytest.mark.parametrize("name", sorted(STAND_IN_OUTPUTS))
def test_training_is_deterministic_and_leaves_the_generator_alone(pictures, name):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = pretrain(name, pictures, seed=2, recipe=Recipe(epochs=1))
    assert torch.equal(torch.rand(2), expected)
    again = pretrain(name, pictures, seed=2, recipe=Recipe(epochs=1))
    other = pretrain(name, pictures, seed=3, recipe=Recipe(epochs=1))
    assert all(torch.equal(first.state[key], again.state[key]) for key in first.state)
    assert first.held_out_score == again.held_out_score
    assert not torch.equal(first.state["fc.weight"], other.state["fc.weight"])


def test_training_learns(pictures):
    chance = 1 / len(SCENE_NAMES)
    assert pretrain("scenes", pictures, seed=0, recipe=Recipe(epochs=8)).held_out_score > 4 * chance


def test_file_says_how_it_was_made(tmp_path, pictures):
    stand_in = pretrain("bodies", pictures, seed=0, recipe=Recipe(epochs=1))
    save_stand_in(stand_in, tmp_path / "bodies.safetensors")
    with safe_open(tmp_path / "bodies.safetensors", framework="pt") as file:
        assert file.metadata() == stand_in.provenance
        assert file.get_tensor("fc.weight").dtype == torch.float16
    assert [path.name for path in tmp_path.iterdir()] == ["bodies.safetensors"]


@pytest.mark.parametrize("name", sorted(STAND_IN_OUTPUTS))
def test_committed_files_say_how_they_were_made(name):
    with safe_open(STAND_INS / f"{name}.safetensors", framework="pt") as file:
        provenance = file.metadata()
    score = float(provenance["held_out_r2" if name == "bodies" else "held_out_accuracy"])
    assert 0.5 < score < 1
    assert {"seed", "pictures", "epochs", "torch", "ccim_ray"} <= provenance.keys()
