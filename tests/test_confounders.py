"""The confounder dictionary: fitted clusters, controls, files, and what is refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from ccim_ray.confounders import ConfounderDictionary, fit_dictionaries
from ccim_ray.errors import RequestError


def planted(clusters=6, feature_dim=20, seed=0, spread=0.05):
    """Features around well separated centres, 10 + 3c of them around centre c, and the centre of each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (clusters, feature_dim)) + 5
    labels = rng.permutation(np.repeat(np.arange(clusters), 10 + 3 * np.arange(clusters)))
    features = centres[labels] + rng.normal(0, spread, (len(labels), feature_dim))
    return features.astype(np.float32), labels


def nearest(points, prototypes):
    return ((points[:, None].astype(np.float64) - prototypes[None]) ** 2).sum(-1).argmin(1)


def test_recovers_planted_clusters_as_means_of_the_original_features():
    features, labels = planted()
    dictionary = ConfounderDictionary.fit(features, size=6, seed=0, pca_components=5, n_init=5)
    prototypes = dictionary.prototypes_ND.numpy()
    assert prototypes.shape == (6, 20)
    assert prototypes.dtype == np.float32
    found = nearest(features, prototypes)
    assert {(a, b) for a, b in zip(found, labels, strict=True)} == set(enumerate(labels_of(found, labels)))
    for i in range(6):
        exact = features[found == i].astype(np.float64).mean(0).astype(np.float32)
        np.testing.assert_array_equal(prototypes[i], exact)
        assert dictionary.prior_N[i].item() == pytest.approx(np.mean(found == i), rel=1e-6)


def labels_of(found, labels):
    """The planted cluster of each fitted one, going by its first member."""
    return [labels[np.flatnonzero(found == i)[0]] for i in range(found.max() + 1)]


def test_prototypes_live_in_feature_space_whatever_the_projection_drops():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 30)).astype(np.float32)
    coarse = ConfounderDictionary.fit(features, size=4, pca_components=2)
    assert coarse.feature_dim == 30
    assert coarse.provenance["pca_components"] == "2"
    # Weighted by the prior, the prototypes are the mean of all features, in every dimension.
    mean = (coarse.prior_N[:, None] * coarse.prototypes_ND).sum(0)
    np.testing.assert_allclose(mean.numpy(), features.mean(0), atol=1e-6)


def test_finds_the_principal_plane_far_from_the_origin():
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [0, 2], [2, 0], [2, 2]])
    labels = rng.integers(0, 4, 300)
    features = rng.normal(0, 0.1, (300, 20))
    features[:, :2] += corners[labels]
    dictionary = ConfounderDictionary.fit(features + 3000, 4, pca_components=2, n_init=5)
    centres = dictionary.prototypes_ND.numpy()[:, :2] - 3000
    np.testing.assert_allclose(sorted(centres.round().tolist()), corners)
    np.testing.assert_allclose(sorted(dictionary.prior_N * 300), sorted(np.bincount(labels)), rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_prior_and_prototypes_keep_the_mean_of_the_features(data):
    samples, width = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 8))
    size, seed = data.draw(st.integers(1, samples)), data.draw(st.integers(0, 5))
    features = np.random.default_rng(seed).normal(size=(samples, width)).astype(np.float32)
    dictionary = ConfounderDictionary.fit(features, size, seed)
    assert dictionary.prototypes_ND.shape == (size, width)
    assert dictionary.prior_N.double().sum().item() == pytest.approx(1, abs=1e-5)
    assert bool((dictionary.prior_N >= 0.999 / samples).all())
    mean = (dictionary.prior_N[:, None].double() * dictionary.prototypes_ND).sum(0)
    np.testing.assert_allclose(mean.numpy(), features.mean(0, dtype=np.float64), atol=1e-5)


def test_same_seed_same_bits_and_sizes_do_not_meet():
    features, _ = planted(spread=2.0)
    together = fit_dictionaries(features, [16, 4, 8], seed=3)
    assert list(together) == [16, 4, 8]
    for size, dictionary in together.items():
        alone = ConfounderDictionary.fit(torch.from_numpy(features), size, seed=3)
        assert torch.equal(alone.prototypes_ND, dictionary.prototypes_ND)
        assert torch.equal(alone.prior_N, dictionary.prior_N)
        assert alone.provenance == dictionary.provenance
    other = ConfounderDictionary.fit(features, 16, seed=4)
    assert not torch.equal(other.prototypes_ND, together[16].prototypes_ND)


def test_fits_more_dimensions_than_features():
    features = np.random.default_rng(0).normal(size=(12, 64)).astype(np.float32)
    dictionary = ConfounderDictionary.fit(features, size=12)
    assert sorted(map(tuple, dictionary.prototypes_ND.tolist())) == sorted(map(tuple, features.tolist()))
    assert dictionary.provenance["pca_components"] == "12"


@pytest.mark.parametrize(
    ("features", "size", "message"),
    [
        (np.zeros((5, 3)) + np.arange(5)[:, None], 6, r"^5 context features .* 6 prototypes; .*a smaller size$"),
        (np.ones((50, 3)), 4, r"^only 1 of 50 context features are distinct.* 4 prototypes; .*a smaller size$"),
        (np.ones((50, 3)), 1, "only 1 of 50"),
        (np.tile([[0.0, 1], [-0.0, 1], [2, 2]], (9, 1)), 3, "only 2 of 27"),
        (np.array([[1, np.nan], [np.inf, 1], [1, 2]]), 2, "^2 of 3 context features hold NaN or infinite"),
        (np.full((3, 2), 1e300), 2, "3 of 3 context features hold NaN or infinite"),
        (np.zeros((0, 3)), 1, "non-empty"),
        (np.zeros(3), 1, "non-empty"),
        (np.ones((5, 2)), 0, "dictionary sizes"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_refuses_features_that_cannot_make_the_dictionary(features, size, message):
    with pytest.raises(RequestError, match=message) as raised:
        ConfounderDictionary.fit(features, size)
    assert "\n" not in str(raised.value)


def test_random_control_follows_the_features_dimension_by_dimension():
    rng = np.random.default_rng(0)
    features = rng.normal(np.arange(5), 1 + np.arange(5), (500, 5)).astype(np.float32)
    control = ConfounderDictionary.random(20_000, 5, seed=1, like_features_MD=features)
    np.testing.assert_allclose(control.prototypes_ND.mean(0), features.mean(0), atol=0.15)
    np.testing.assert_allclose(control.prototypes_ND.std(0), features.std(0), rtol=0.03)
    assert torch.equal(control.prior_N, torch.full((20_000,), 1 / 20_000))


def test_random_control_without_features_is_standard_normal_and_seeded():
    control = ConfounderDictionary.random(4000, 6, seed=1)
    assert control.prototypes_ND.dtype == torch.float32
    np.testing.assert_allclose(control.prototypes_ND.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(control.prototypes_ND.std(0), 1, atol=0.1)
    assert torch.equal(control.prototypes_ND, ConfounderDictionary.random(4000, 6, seed=1).prototypes_ND)
    assert not torch.equal(control.prototypes_ND, ConfounderDictionary.random(4000, 6, seed=2).prototypes_ND)


def test_a_shuffled_prior_deals_the_same_values_to_other_prototypes():
    features, _ = planted()
    dictionary = ConfounderDictionary.fit(features, size=6)
    control = dictionary.with_shuffled_prior(seed=3)
    assert torch.equal(control.prototypes_ND, dictionary.prototypes_ND)
    assert not torch.equal(control.prior_N, dictionary.prior_N)
    assert control.prior_N.sort().values.tolist() == dictionary.prior_N.sort().values.tolist()
    assert torch.equal(control.prior_N, dictionary.with_shuffled_prior(seed=3).prior_N)
    assert not torch.equal(control.prior_N, dictionary.with_shuffled_prior(seed=4).prior_N)
    assert control.provenance == {**dictionary.provenance, "prior": "shuffled, seed 3"}


def test_a_uniform_prior_leaves_the_prototypes_alone():
    dictionary = ConfounderDictionary.fit(planted()[0], size=6)
    control = dictionary.with_uniform_prior()
    assert torch.equal(control.prototypes_ND, dictionary.prototypes_ND)
    assert control.prior_N.tolist() == pytest.approx([1 / 6] * 6)
    assert control.provenance["prior"] == "uniform"


def test_random_control_refuses_features_of_another_width():
    with pytest.raises(ValueError, match="features are 3 wide, feature_dim is 4"):
        ConfounderDictionary.random(2, 4, like_features_MD=np.ones((5, 3)))


def test_file_keeps_every_bit_and_is_the_same_file_every_time(tmp_path):
    features, _ = planted()
    dictionary = ConfounderDictionary.fit(features, 6)
    paths = [tmp_path / "new" / f"{name}.safetensors" for name in "ab"]
    for path in paths:
        dictionary.save(path)
    loaded = ConfounderDictionary.load(paths[0])
    assert torch.equal(loaded.prototypes_ND, dictionary.prototypes_ND)
    assert torch.equal(loaded.prior_N, dictionary.prior_N)
    assert loaded.provenance == dictionary.provenance
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.safetensors", "b.safetensors"]
    with safe_open(paths[0], framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("prior_N"), dictionary.prior_N.numpy())


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "z.safetensors"
    path.mkdir()
    with pytest.raises(RequestError, match=r"z\.safetensors"):
        ConfounderDictionary.random(3, 2).save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["z.safetensors"]


def test_load_refuses_what_is_not_a_dictionary(tmp_path):
    path = tmp_path / "z.safetensors"

    def assert_refused(message):
        with pytest.raises(RequestError, match=message) as raised:
            ConfounderDictionary.load(path)
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)

    assert_refused("no such dictionary file")
    ConfounderDictionary.random(3, 2).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"not safetensors", whole[:-4], whole[:40], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        assert_refused("not a readable dictionary file")
    path.unlink()

    tensors = {"prototypes_ND": torch.ones(3, 2), "prior_N": torch.full((3,), 1 / 3)}
    good = {"format": 1, "provenance": {}}
    for bad_tensors, description, message in [
        (tensors, None, "not a dictionary file of format 1"),
        (tensors, {**good, "format": 2}, r"format 1 \(found 2\)"),
        ({"prior_N": tensors["prior_N"]}, good, "prototypes_ND"),
        ({**tensors, "prior_N": torch.ones(3)}, good, "prior must sum to 1, found 3"),
        ({**tensors, "prior_N": torch.full((3, 1), 1 / 3)}, good, r"prior must be \(3,\)"),
        ({**tensors, "prototypes_ND": torch.full((3, 2), torch.nan)}, good, "6 of 6 values"),
        (tensors, {**good, "provenance": {"seed": 3}}, "provenance must map text to text"),
    ]:
        metadata = None if description is None else {"confounder_dictionary": json.dumps(description)}
        save_file(bad_tensors, path, metadata)
        assert_refused(message)


@pytest.mark.parametrize(
    ("prototypes", "prior", "message"),
    [
        (torch.ones(4), torch.ones(4) / 4, "prototypes must be"),
        (torch.ones(0, 3), torch.ones(0), "prototypes must be"),
        (torch.ones(4, 3), torch.ones(4, 1) / 4, r"prior must be \(4,\), found \(4, 1\)"),
        (torch.ones(4, 3), torch.ones(3) / 3, r"prior must be \(4,\), found \(3,\)"),
        (torch.ones(4, 3), torch.rand(4) + 1, "prior must sum to 1"),
        (torch.ones(4, 3), torch.tensor([0.5, 0.5, 0.2, -0.2]), "prior must not be negative, found -0.2"),
        (torch.ones(2, 3), torch.tensor([torch.nan, 1]), "prior must be finite"),
        (torch.ones(2, 3) / 0, torch.ones(2) / 2, "prototypes must be finite, found 6 of 6"),
        (torch.ones(1, 3, dtype=torch.int64), torch.ones(1), "prototypes must be floating point"),
        (torch.ones(1, 3), torch.ones(1, dtype=torch.int64), "prior must be floating point"),
    ],
)
def test_refuses_tensors_that_are_no_dictionary(prototypes, prior, message):
    with pytest.raises(ValueError, match=message) as raised:
        ConfounderDictionary(prototypes, prior)
    assert "\n" not in str(raised.value)


def test_first_centres_from_a_sample_of_the_rows_cost_no_quality(monkeypatch):
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 2, (40, 16))
    features = (centres[rng.integers(0, 40, 3000)] + rng.normal(0, 1, (3000, 16))).astype(np.float32)
    all_rows = ConfounderDictionary.fit(features, size=32)
    assert all_rows.provenance["kmeans++_rows"] == "3000"
    monkeypatch.setattr("ccim_ray.confounders.SEEDING_ROWS", 500)
    sampled = ConfounderDictionary.fit(features, size=32)
    assert sampled.provenance["kmeans++_rows"] == "500"
    assert float(sampled.provenance["inertia"]) < 1.03 * float(all_rows.provenance["inertia"])
    assert torch.equal(sampled.prototypes_ND, ConfounderDictionary.fit(features, size=32).prototypes_ND)
    assert ConfounderDictionary.fit(features, size=32, n_init=2).provenance["kmeans++_rows"] == "3000"
