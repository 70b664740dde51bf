"""Dictionaries from features in blocks: those of the features in memory, errors by name, and memory that stays."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from ccim_ray.confounders import ConfounderDictionary, fit_dictionaries
from ccim_ray.errors import RequestError
from ccim_ray.feature_blocks import feature_blocks, read_together
from ccim_ray.large_dictionaries import fit_large_dictionaries, random_like_large
from ccim_ray.prepared import write_shard


def in_this_process(tasks):
    return (task() for task in tasks)


def mixture(rows=4000, width=24, clusters=40, spread=0.5):
    rng = np.random.default_rng(0)
    centres = rng.normal(2, 2, (clusters, width))
    return (centres[rng.integers(0, clusters, rows)] + rng.normal(0, spread, (rows, width))).astype(np.float32)


def reads(features, ends):
    return [partial(np.copy, block) for block in np.split(features, ends)]


def fit(features, folder, sizes, ends=(900, 900, 2500), seed=3, pca_components=10):
    return fit_large_dictionaries(reads(features, list(ends)), in_this_process, folder, sizes, seed, pca_components)


@pytest.mark.parametrize("seeding_rows", [500, 8192])
def test_gives_the_dictionaries_of_the_features_in_memory(tmp_path, monkeypatch, seeding_rows):
    monkeypatch.setattr("ccim_ray.confounders.SEEDING_ROWS", seeding_rows)
    features = mixture()
    expected = fit_dictionaries(features, [8, 40, 60], seed=3, pca_components=10)
    if seeding_rows > len(features):  # K-Means++ within scikit-learn draws from centred rows: other bits, other centres
        expected.pop(60)
    found = fit(features, tmp_path, list(expected))
    for size, dictionary in expected.items():
        assert torch.equal(found[size].prior_N, dictionary.prior_N)  # every feature in the same cluster
        torch.testing.assert_close(found[size].prototypes_ND, dictionary.prototypes_ND, rtol=1e-6, atol=1e-6)
        same = dict(found[size].provenance)
        assert float(same.pop("inertia")) == pytest.approx(float(dictionary.provenance["inertia"]), rel=1e-4)
        assert same == {name: text for name, text in dictionary.provenance.items() if name != "inertia"}


def test_same_blocks_same_bits_and_a_size_does_not_see_the_others(tmp_path):
    features = mixture(spread=3)
    together = fit(features, tmp_path, [5, 30])
    alone = fit(features, tmp_path, [30])[30]
    assert torch.equal(together[30].prototypes_ND, alone.prototypes_ND)
    assert together[30].provenance == alone.provenance


def test_names_what_cannot_be_clustered(tmp_path):
    features = mixture(300)
    broken = features.copy()
    broken[7, 3], broken[250, 0] = np.nan, np.inf
    with pytest.raises(RequestError, match="^2 of 300 context features hold NaN or infinite values"):
        fit(broken, tmp_path, [4], ends=[100])
    with pytest.raises(RequestError, match="^2 of 300 context features hold NaN or infinite values"):
        random_like_large(reads(broken, [100]), in_this_process, [4], seed=0)
    with pytest.raises(RequestError, match="^300 context features cannot make a dictionary of 301"):
        fit(features, tmp_path, [301], ends=[100])
    with pytest.raises(RequestError, match="only 3 of 300 context features are distinct"):
        fit(np.repeat(features[:3], 100, axis=0), tmp_path, [4], ends=[100])
    with pytest.raises(RequestError, match="found no row"):
        fit(features[:0], tmp_path, [1], ends=[0])


def test_clusters_that_stay_empty_are_an_error(tmp_path):
    # Distinct features whose difference is lost in projection: five clusters of one point.
    features = np.zeros((400, 2), np.float32)
    features[:, 0] = np.repeat([0, 1000], 200)
    features[:, 1] = np.arange(400) % 7 * 1e-4
    with pytest.raises(RequestError, match="of 6 clusters are empty, the context features are too much alike"):
        fit(features, tmp_path, [6], ends=[100], pca_components=1)


def test_the_random_control_is_that_of_the_features_in_memory():
    features = mixture()
    expected = ConfounderDictionary.random(50, 24, seed=2, like_features_MD=features)
    found = random_like_large(reads(features, [10, 2000]), in_this_process, [50], seed=2)[50]
    torch.testing.assert_close(found.prototypes_ND, expected.prototypes_ND, rtol=1e-5, atol=1e-5)
    assert found.provenance == expected.provenance


PEAK = """
import sys, tempfile, tracemalloc
from functools import partial
from pathlib import Path
import numpy as np
import sklearn.cluster  # imports are not the fit's memory
from ccim_ray.large_dictionaries import fit_large_dictionaries

def block(number):
    rng = np.random.default_rng(number)
    return rng.standard_normal((2000, 64), dtype=np.float32) + 3 * rng.integers(0, 8, (2000, 1)).astype(np.float32)

def in_order(tasks):
    return (task() for task in tasks)

with tempfile.TemporaryDirectory() as folder:
    tracemalloc.start()
    blocks = [partial(block, number) for number in range(int(sys.argv[1]))]
    fit_large_dictionaries(blocks, in_order, Path(folder), [16], 0, 32)
    print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows():
    peaks = {
        count: int(subprocess.run([sys.executable, "-c", PEAK, str(count)], stdout=subprocess.PIPE, check=True).stdout)
        for count in (6, 60)
    }
    assert peaks[60] < 1.15 * peaks[6]
    assert peaks[60] < 60 * 2000 * 64 * 4 / 2  # half of the features


@pytest.fixture
def shards(tmp_path):
    """300 features in shards of 128, two of them unusable, and which are chosen."""
    features = mixture(300, 6)
    for number in range(3):
        of = slice(128 * number, min(300, 128 * (number + 1)))
        reasons = ["missing file" if row in (5, 200) else None for row in range(of.start, of.stop)]
        ids = [str(row) for row in range(of.start, of.stop)]
        write_shard(tmp_path / f"shard-{number:05d}.parquet", ids, features[of], reasons)
    chosen = np.random.default_rng(0).random(300) < 0.6
    chosen[[5, 200]] = True
    return tmp_path, features, chosen


@pytest.mark.parametrize("block_values", [1, 6 * 256, 2**23])
def test_blocks_hold_the_usable_chosen_rows_in_order(shards, monkeypatch, block_values):
    monkeypatch.setattr("ccim_ray.principal_components.BLOCK_VALUES", block_values)
    folder, features, chosen = shards
    blocks = feature_blocks(folder, chosen)
    assert len(blocks) == {1: 3, 6 * 256: 2, 2**23: 1}[block_values]
    usable = chosen.copy()
    usable[[5, 200]] = False
    np.testing.assert_array_equal(np.concatenate([block() for block in blocks]), features[usable])
    np.testing.assert_array_equal(read_together(blocks), features[usable])


def test_blocks_refuse_shards_that_do_not_fit_the_subjects_or_are_damaged(shards):
    folder, _, chosen = shards
    with pytest.raises(RequestError, match="holds 300 rows that do not match the 299 subjects"):
        feature_blocks(folder, chosen[1:])
    blocks = feature_blocks(folder, chosen)
    path = folder / "shard-00001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"shard-00001\.parquet is damaged"):
        read_together(blocks)
    path.write_bytes(b"short")
    with pytest.raises(RequestError, match="a shard is missing or damaged"):
        feature_blocks(folder, chosen)
