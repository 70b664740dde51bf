"""Head trials on files in their real formats: a small world's subjects, with made-up features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.prepared import TrialPaths, write_shard, write_subject_index
from ccim_ray.presets import default_experiment
from ccim_ray.trial_folder import Trial

FEATURES = 512
"""Of thin_resnet."""

SETTINGS = {
    "vanilla": {"deconfounder": "none"},
    "control": {"deconfounder": "projection"},
    "dot": {"dictionary__size": 4},
    "additive": {"dictionary__size": 8, "ccim__attention": "additive"},
    "unweighted": {"dictionary__size": 8, "ccim__use_lambda": False, "ccim__use_prior": False},
    "clusters": {"deconfounder": "backdoor", "dictionary__size": 4},
}


def write_inputs(world: Path, folder: Path) -> None:
    """What all trials read: subjects, three views of features, and dictionaries of 4 and 8 prototypes."""
    dataset = load_dataset("confounded_scenes", world)
    write_subject_index(dataset, folder / "subjects.parquet")
    ids = [subject.subject_id for subject in dataset.subjects]
    generator = np.random.default_rng(0)
    for view in ("context", "body", "masked_context"):
        rows = generator.random((len(ids), FEATURES), np.float32)
        write_shard(folder / view / "shard-00000.parquet", ids, rows, [None] * len(ids))
    for size in (4, 8):
        ConfounderDictionary.random(size, FEATURES, seed=size).save(folder / f"{size}.safetensors")


def head_trial(inputs: Path, trials: Path, name: str, seed: int = 0, **changes: object) -> Trial:
    """A trial of one of SETTINGS that reads what write_inputs wrote; its folder is named like it."""
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=60, image_size=64))
    experiment = base.with_changes(**SETTINGS[name], seed=seed, **{"epochs": 3, "batch_size": 16, **changes})
    uses_dictionary = name not in ("vanilla", "control")
    paths = TrialPaths(
        folder=str(trials / f"{name}-{seed}"),
        subjects=str(inputs / "subjects.parquet"),
        views={view: str(inputs / view) for view in ("context", "body")},
        dictionary=str(inputs / f"{experiment.dictionary.size}.safetensors") if uses_dictionary else None,
        context=str(inputs / "masked_context") if name == "clusters" else None,
        context_inputs=("cluster",) if name == "clusters" else (),
    )
    return Trial(experiment, f"{name}-{seed}", paths)
