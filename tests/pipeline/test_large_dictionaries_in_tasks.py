"""Dictionaries fitted block by block in Ray tasks: the bits of one process, nothing left behind, errors in one line."""

from __future__ import annotations

import numpy as np
import pytest
import ray
import torch

from ccim_ray.errors import RequestError
from ccim_ray.experiment import DictionarySettings
from ccim_ray.feature_blocks import feature_blocks
from ccim_ray.large_dictionaries import fit_large_dictionaries
from ccim_ray.pipeline.cluster import plain_errors
from ccim_ray.pipeline.dictionaries import block_by_block, is_large
from ccim_ray.prepared import write_shard

pytestmark = pytest.mark.slow


def test_tasks_give_the_bits_of_one_process(tmp_path, monkeypatch, cluster) -> None:
    monkeypatch.setattr("ccim_ray.principal_components.BLOCK_VALUES", 128 * 16 * 2)
    features = np.random.default_rng(0).normal(size=(128 * 9, 16)).astype(np.float32)
    for number, rows in enumerate(np.split(features, 9)):
        write_shard(tmp_path / f"shard-{number:05d}.parquet", [str(k) for k in range(128)], rows, [None] * 128)
    blocks = feature_blocks(tmp_path, np.ones(len(features), bool))
    assert len(blocks) == 5
    assert not is_large(blocks)
    monkeypatch.setattr("ccim_ray.pipeline.dictionaries.MEMORY_SHARE", 1e-9)
    assert is_large(blocks)

    @ray.remote(num_cpus=1)
    def in_one_process() -> object:
        (tmp_path / "alone").mkdir()
        return fit_large_dictionaries(blocks, lambda tasks: (t() for t in tasks), tmp_path / "alone", [8, 32], 0, 10)

    @ray.remote(num_cpus=1)
    def in_tasks() -> object:
        return block_by_block(blocks, DictionarySettings(size=8, pca_components=10), [8, 32], tmp_path / "in_tasks")

    alone, ours = ray.get(in_one_process.remote()), ray.get(in_tasks.remote())
    for size in (8, 32):
        assert torch.equal(ours[size].prototypes_ND, alone[size].prototypes_ND)
        assert torch.equal(ours[size].prior_N, alone[size].prior_N)
        assert ours[size].provenance == alone[size].provenance
    assert list((tmp_path / "in_tasks").iterdir()) == []

    (tmp_path / "shard-00004.parquet").write_bytes(b"short")
    with pytest.raises(RequestError, match=r"^[^\n]*shard-00004\.parquet is damaged[^\n]*$"), plain_errors():
        ray.get(in_tasks.remote())
    assert list((tmp_path / "in_tasks").iterdir()) == []
