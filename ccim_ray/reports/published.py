"""The paper's published numbers, as fractions in [0, 1]."""

from __future__ import annotations

import csv
from importlib.resources import files

from ccim_ray.experiment import BackboneSettings, CcimSettings, Experiment
from ccim_ray.paper import ABLATIONS, DEFAULT_DICTIONARY_SIZE

_DATASETS = {"emotic": "EMOTIC", "caer_s": "CAER-S", "groupwalk": "GroupWalk"}
_METHODS = {"emot_net": "EMOT-Net", "gcn_cnn": "GCN-CNN", "caer_net": "CAER-Net", "emoticon": "EmotiCon"}
_WHOLE = "default"


def published_of(experiment: Experiment) -> dict[str, float]:
    """What the paper prints for this experiment's model, with the keys of ``published_scores``; empty for nothing.

    It has each baseline as it is, with CCIM as the paper settles on it (Tables 1-3), and that changed in one place
    (Table 4).
    """
    if experiment.deconfounder == "none":
        return published_scores(experiment.dataset, experiment.baseline, with_ccim=False)
    row = _row_of(experiment)
    return published_scores(experiment.dataset, experiment.baseline, True, row) if row else {}


def published_scores(dataset: str, baseline: str, with_ccim: bool, row: str = _WHOLE) -> dict[str, float]:
    """Tables 1-4 on the test split: "" is the mAP or accuracy, "AP/<category>" a category's average precision.

    ``row`` is a row of Table 4, a key of ``paper.ABLATIONS``, or "default". Empty where the paper has none, as for
    the embedded world.
    """
    if dataset not in _DATASETS or baseline not in _METHODS:
        return {}
    wanted = (_DATASETS[dataset], _METHODS[baseline], str(int(with_ccim)), row)
    found = {}
    with (files("ccim_ray.reports") / "published.csv").open() as stream:
        for line in csv.DictReader(stream):
            if (line["dataset"], line["method"], line["with_ccim"], line["setting"]) == wanted:
                key = f"AP/{line['category']}" if line["category"] else ""
                found[key] = float(line["value_percent"]) / 100
    return found


def _row_of(experiment: Experiment) -> str | None:
    """The row of Table 4 that the experiment is; None for a model that the paper does not have."""
    size = DEFAULT_DICTIONARY_SIZE.get(experiment.dataset)
    if experiment.deconfounder != "ccim" or size is None:
        return None
    whole = experiment.model_copy(
        update={
            "ccim": CcimSettings(),
            "backbone": BackboneSettings(arch="resnet152", weights="places365"),
            "masking": "subject",
            "dictionary": experiment.dictionary.model_copy(
                update={"size": size, "source": "clusters", "prior": "counts"}
            ),
        }
    )
    rows = {_WHOLE: {}, **ABLATIONS}
    same = [row for row, change in rows.items() if whole.with_changes(**change).essence() == experiment.essence()]
    return same[0] if same else None
