"""The paper's published numbers, as fractions in [0, 1]."""

from __future__ import annotations

import csv
from importlib.resources import files

_DATASETS = {"emotic": "EMOTIC", "caer_s": "CAER-S", "groupwalk": "GroupWalk"}
_METHODS = {"emot_net": "EMOT-Net", "gcn_cnn": "GCN-CNN", "caer_net": "CAER-Net", "emoticon": "EmotiCon"}


def published_score(dataset: str, baseline: str, with_ccim: bool) -> float | None:
    """mAP or accuracy of Tables 1-3 on the test split; None where the paper has none (no embedded world)."""
    if dataset not in _DATASETS or baseline not in _METHODS:
        return None
    wanted = (_DATASETS[dataset], _METHODS[baseline], str(int(with_ccim)), "default")
    with (files("ccim_ray.reports") / "published.csv").open() as stream:
        for row in csv.DictReader(stream):
            found = (row["dataset"], row["method"], row["with_ccim"], row["setting"])
            if row["table"] in ("table1", "table2", "table3") and found == wanted and not row["category"]:
                return float(row["value_percent"]) / 100
    return None
