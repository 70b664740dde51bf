"""The paper's published numbers, as fractions in [0, 1]."""

from __future__ import annotations

import csv
from importlib.resources import files

_DATASETS = {"emotic": "EMOTIC", "caer_s": "CAER-S", "groupwalk": "GroupWalk"}
_METHODS = {"emot_net": "EMOT-Net", "gcn_cnn": "GCN-CNN", "caer_net": "CAER-Net", "emoticon": "EmotiCon"}


def published_scores(dataset: str, baseline: str, with_ccim: bool) -> dict[str, float]:
    """Tables 1-3 on the test split: "" is the mAP or accuracy, "AP/<category>" a category's average precision.

    Empty where the paper has none, as for the embedded world.
    """
    if dataset not in _DATASETS or baseline not in _METHODS:
        return {}
    wanted = (_DATASETS[dataset], _METHODS[baseline], str(int(with_ccim)), "default")
    found = {}
    with (files("ccim_ray.reports") / "published.csv").open() as stream:
        for row in csv.DictReader(stream):
            of_row = (row["dataset"], row["method"], row["with_ccim"], row["setting"])
            if row["table"] in ("table1", "table2", "table3") and of_row == wanted:
                key = f"AP/{row['category']}" if row["category"] else ""
                found[key] = float(row["value_percent"]) / 100
    return found
