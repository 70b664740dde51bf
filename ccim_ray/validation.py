"""All that a search may know of a trial: its scores on the validation split.

The journal of a trial is written while it trains, before any test split is scored, and of its lines only ``val/...``
is read here; of ``scores.safetensors`` only the validation split's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccim_ray.journal import read_journal
from ccim_ray.storage import read_json
from ccim_ray.trial_folder import sound_scores

RESAMPLES = 200


def best_so_far(folder: Path, metric: str) -> list[float]:
    """After each epoch of the trial in ``folder``, the best ``val/<metric>`` until then.

    The last one is the objective: the metric of the epoch whose weights are kept. Empty before the first epoch.
    Raises RequestError where the journal is damaged.
    """
    values = [line.metrics[f"val/{metric}"] for line in read_journal(folder / "journal.jsonl")]
    return [float(value) for value in np.maximum.accumulate(values)] if values else []


def standard_error(folder: Path, metric: str) -> float:
    """Standard error of the kept epoch's ``val/<metric>`` over the draw of the validation subjects, by bootstrap.

    It says nothing of seeds: the trial has one. Raises RequestError where the trial's files are missing or damaged.
    """
    from safetensors import safe_open

    from ccim_ray.metrics import evaluate

    facts = read_json(folder / "categories.json")
    with safe_open(sound_scores(folder), "np") as scores:
        scores_SK, targets_SK = scores.get_tensor("val"), scores.get_tensor("val/targets")
    generator = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(scores_SK), size=len(scores_SK))
        values.append(evaluate(scores_SK[drawn], targets_SK[drawn], facts["names"], facts["multi_label"])[metric])
    return float(np.std(values, ddof=1))
