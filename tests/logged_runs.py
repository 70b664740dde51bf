"""Sweeps in a real MLflow, logged as a sweep logs them, with numbers that are known."""

from __future__ import annotations

import json
from pathlib import Path

from ccim_ray.journal import Journal
from ccim_ray.reports.tables import constant_row
from ccim_ray.results import LedgerEntry
from ccim_ray.space import Space
from ccim_ray.sweep_tags import PUBLISHED, constant_tags, description_tags
from ccim_ray.tracking import Tracker

SPACE = Space(
    name="dict_size",
    question="Does N matter?",
    changes={"vanilla": {}, "CCIM N=64": {}, "CCIM N=128": {}},
    reference="vanilla",
    axis={"CCIM N=64": 64, "CCIM N=128": 128},
    axis_label="dictionary size N",
)

VALUES = {
    "vanilla": {0: 0.50, 1: 0.52, 2: 0.51},
    "CCIM N=64": {0: 0.511, 1: 0.519, 2: 0.512},
    "CCIM N=128": {0: 0.60, 1: 0.621, 2: 0.61},
}
"""test_do/accuracy by setting and seed. N=64 cannot be told from vanilla; N=128 can."""

TAGS = {"ccim.data_fingerprint": "f1ng3r", "mlflow.source.git.commit": "c0ffee", "ccim.version.torch": "2.14.1"}


def open_sweep(
    tracker: Tracker,
    space: Space = SPACE,
    seeds=(0, 1, 2),
    sweep_id="sweep1",
    baseline: str = "emot_net",
    **tags: str,
) -> str:
    """Run id of a new parent that was asked for every setting of the space with these seeds."""
    entries = [
        LedgerEntry(baseline, setting, space.axis.get(setting), {seed: Path(f"{seed}") for seed in seeds})
        for setting in space.changes
    ]
    constants = [constant_row("confounded_scenes", baseline, "chance", "test_do/accuracy", 0.1817)]
    described = description_tags(space, entries) | constant_tags(constants)
    return tracker.open_parent(sweep_id, f"{space.name} of {baseline}", {}, {**TAGS, **described, **tags})


def log_trial(
    tracker: Tracker,
    parent: str,
    setting: str,
    seed: int,
    metrics: dict[str, float],
    *,
    signature: str = "",
    status: str | None = "FINISHED",
    reason: str | None = None,
    baseline: str = "emot_net",
    dataset: str = "confounded_scenes",
    epochs: tuple[float, ...] = (),
    published: dict[str, float] | None = None,
    folder: Path | None = None,
    parameters: dict[str, str] | None = None,
    **tags: str,
) -> str:
    """Run id of a trial that ended so; ``status`` None leaves it RUNNING."""
    params = {"baseline": baseline, "dataset": dataset, "seed": str(seed), **(parameters or {})}
    described = {**TAGS, "ccim.setting": setting, **tags}
    if published:
        described[PUBLISHED] = json.dumps(published)
    name = signature or f"{baseline} {setting} {seed}"
    run = tracker.open_trial(parent, name, f"{setting}, seed {seed}", params, described)
    if epochs and folder:
        with Journal(folder / run.run_id / "journal.jsonl") as journal:
            for step, value in enumerate(epochs):
                journal.append(step, {"train/loss": 1.0 / (step + 1), "val/accuracy": value})
            tracker.replay(run, journal.path)
    tracker.log_final(run, metrics)
    if status:
        tracker.finish(run.run_id, status, reason)
    return run.run_id


def metrics_of(value: float) -> dict[str, float]:
    """What a trial of the embedded world measures, around ``value`` on test_do."""
    of_categories = {"recall/Anger": value + 0.05, "recall/Sad": value - 0.05}
    splits = {"val": 0.3, "test_id": 0.2, "test_do": 0.0}
    return {
        f"{split}/{name}": score + shift
        for split, shift in splits.items()
        for name, score in {"accuracy": value, **of_categories}.items()
    }


def log_sweep(tracker: Tracker, folder: Path) -> str:
    """Run id of a finished sweep with VALUES."""
    parent = open_sweep(tracker)
    for setting, seeds in VALUES.items():
        for seed, value in seeds.items():
            log_trial(
                tracker,
                parent,
                setting,
                seed,
                metrics_of(value),
                epochs=(value - 0.1, value, value),
                folder=folder,
                **{"ccim.sweep": "sweep1"},
            )
    tracker.finish(parent, "FINISHED")
    return parent
