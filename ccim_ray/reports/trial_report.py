"""What is kept of one trial beside its numbers: figures of its test scores, and an example for its model.

Shape suffixes: S subjects, K categories.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from ccim_ray.datasets.subject import subjects_from_table
from ccim_ray.metrics import evaluate
from ccim_ray.persons import write_person
from ccim_ray.reports.figures import confusion_matrix, per_category_chart
from ccim_ray.trial_folder import sound_scores

if TYPE_CHECKING:
    import pandas as pd


def draw_trial_figures(folder: Path, figures: Path, note: str = "") -> None:
    """One figure a test split: the confusion matrix, or for several labels at once the AP of each category.

    ``note`` is what must be known of the numbers, and stands in the title. Raises RequestError where the scores are
    missing or damaged.
    """
    facts = json.loads((folder / "categories.json").read_text())
    names = tuple(facts["names"])
    scores = load_file(sound_scores(folder))
    for split in (name for name in scores if name.startswith("test") and "/" not in name):
        scores_SK, targets_SK = scores[split], scores[f"{split}/targets"]
        if len(scores_SK) == 0:
            continue
        if facts["multi_label"]:
            values = evaluate(scores_SK, targets_SK, names, multi_label=True)
            shown = {key.removeprefix("AP/"): value for key, value in values.items() if key.startswith("AP/")}
            per_category_chart(shown, figures / f"{split}_average_precision.png", note)
        else:
            counts_KK = np.zeros((len(names), len(names)), np.int64)
            np.add.at(counts_KK, (targets_SK.argmax(1), scores_SK.argmax(1)), 1)
            confusion_matrix(counts_KK, names, figures / f"{split}_confusion.png", note)


def model_example(folder: Path, subjects: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One subject as input of the logged model, and the form of its output, from which MLflow reads types."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = Path(json.loads(pq.read_schema(subjects).metadata[b"ccim_ray"])["root"])
    with pq.ParquetFile(subjects) as file:
        first = pa.Table.from_batches([next(file.iter_batches(batch_size=1))])
    names = json.loads((folder / "categories.json").read_text())["names"]
    example_input = pd.DataFrame([write_person(subjects_from_table(first)[0], root)])
    return example_input, pd.DataFrame(np.zeros((1, len(names)), np.float32), columns=names)
