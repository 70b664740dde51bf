"""Trials of every baseline and every deconfounder, head and end to end: seconds each, on made-up views in real files.

There are 8 subjects to train on, so that batches of 4 make two steps an epoch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ccim_ray.baselines.card import Input
from ccim_ray.baselines.registry import inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.experiment import Experiment
from ccim_ray.perception.architectures import architecture, is_geometry
from ccim_ray.perception.geometry import SHAPES
from ccim_ray.prepared import TrialPaths, write_shard, write_subject_index
from ccim_ray.presets import default_experiment
from ccim_ray.trial_folder import Trial

BASELINES = {
    "emot_net": ("emot_net", {}),
    "gcn_cnn": ("gcn_cnn", {}),
    "caer_net": ("caer_net", {}),
    "emoticon with depth": ("emoticon", {"sociodynamic": "depth"}),
    "emoticon with agents": ("emoticon", {"sociodynamic": "agents"}),
}
"""Every baseline, EmotiCon in both of its forms, with its options."""

SIZES = {"train": 8, "val": 3, "test_id": 3}
STEPS = 2
"""Of an epoch."""
PROTOTYPES = 4


class SmallTrials:
    """Inputs of the trials in ``folder``, each view written when a trial first asks for it.

    Args:
        world: a written embedded world, from which the subjects are taken.
    """

    def __init__(self, world: Path, folder: Path) -> None:
        self._folder, self._subjects = folder, folder / "subjects.parquet"
        dataset = load_dataset("confounded_scenes", world)
        of_split = {split: [each for each in dataset.subjects if each.split == split] for split in SIZES}
        subjects = tuple(each for split, size in SIZES.items() for each in of_split[split][:size])
        assert len(subjects) == sum(SIZES.values())
        self._ids = [each.subject_id for each in subjects]
        write_subject_index(replace(dataset, subjects=subjects), self._subjects)

    def trial(self, folder: Path, baseline: str, trainable: str, **changes: object) -> Trial:
        """A trial of one of BASELINES, two epochs long, with ``folder`` for what it leaves behind."""
        name, options = BASELINES[baseline]
        base = default_experiment(
            "confounded_scenes", "smoke", WorldSettings(images=60, image_size=64), name, trainable, options
        )
        experiment = base.with_changes(**{"epochs": 2, "batch_size": 4, "dictionary__size": PROTOTYPES, **changes})
        card = deconfounder_card(experiment.deconfounder)
        width = architecture(experiment.backbone.arch).feature_dim
        paths = TrialPaths(
            folder=str(folder),
            subjects=str(self._subjects),
            views={str(item.view): self._view(item, experiment) for item in inputs_of(name, options)},
            dictionary=self._dictionary(width) if card.uses_dictionary else None,
            context=self._written("context_features", (width,), np.float32) if card.trains_with else None,
            context_inputs=card.trains_with,
        )
        return Trial(experiment, folder.name, paths)

    def _view(self, item: Input, experiment: Experiment) -> str:
        if is_geometry(item.view):
            return self._written(item.view, SHAPES[item.view], np.float32)
        trunk = architecture(experiment.trunks[item.view].arch)
        if experiment.trainable == "all":
            return self._written(f"{item.view}-{trunk.name}", (trunk.input_size, trunk.input_size, 3), np.uint8)
        if item.form == "map":
            side = trunk.input_size // trunk.stride
            return self._written(f"{item.view}-map", (trunk.feature_dim, side, side), np.float16)
        return self._written(item.view, (trunk.feature_dim,), np.float32)

    def _written(self, name: str, shape: tuple[int, ...], dtype: type) -> str:
        folder = self._folder / name
        if not folder.exists():
            generator = np.random.default_rng(len(name))
            rows = generator.random((len(self._ids), *shape), np.float32)
            if name in ("agents", "regions"):  # boxes with some extent
                rows = np.concatenate([rows[..., :2] / 2, rows[..., 2:4] / 2 + 0.5, np.ones_like(rows[..., 4:])], -1)
            rows = (255 * rows if dtype is np.uint8 else rows).astype(dtype)
            suffix = ".parquet" if len(shape) < 3 else ".arrow"
            write_shard(folder / f"shard-00000{suffix}", self._ids, rows, [None] * len(self._ids))
        return str(folder)

    def _dictionary(self, width: int) -> str:
        path = self._folder / "dictionary.safetensors"
        if not path.exists():
            ConfounderDictionary.random(PROTOTYPES, width, seed=0).save(path)
        return str(path)
