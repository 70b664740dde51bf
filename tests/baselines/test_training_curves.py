"""Each baseline trains as it did before: the losses of 20 steps, with CCIM and without, to the bit.

Run as a program, this file prints the curves that tests/golden keeps:
    ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 \\
        python tests/baselines/test_training_curves.py > tests/golden/baseline_curves.txt
"""

import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parents[1]))

import numpy as np
import pytest
from baseline_inputs import CATEGORIES, DIMS, MAPS
from baseline_inputs import make_inputs as make_views
from golden_programs import kept_for_x86, printed_by

from ccim_ray.baselines.registry import build_baseline, inputs_of
from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.experiment import Experiment
from ccim_ray.intervention import CCIM
from ccim_ray.journal import read_journal
from ccim_ray.prepared import SubjectIndex, TrialInputs, ViewRows
from ccim_ray.recogniser import Recogniser
from ccim_ray.training import train

GOLDEN = Path(__file__).parents[1] / "golden" / "baseline_curves.txt"
STEPS, TRAIN, VAL = 20, 24, 8
LEARNING_RATE = {"gcn_cnn": 1e-4}
"""Ten times this, and kernels that round otherwise are soon on another path through its six layers."""
BASELINES = {
    "emot_net": ("emot_net", {}),
    "gcn_cnn": ("gcn_cnn", {}),
    "caer_net": ("caer_net", {}),
    "emoticon with depth": ("emoticon", {"sociodynamic": "depth"}),
    "emoticon with agents": ("emoticon", {"sociodynamic": "agents"}),
}
CASES = [(name, deconfounder) for name in BASELINES for deconfounder in ("none", "ccim")]


def make_inputs(items):
    """What the items say, from tests/baseline_inputs.py; maps are float16, as on disk. Categories take turns."""
    splits = np.repeat(["train", "val"], [TRAIN, VAL])
    rows = make_views(TRAIN + VAL)
    views = {}
    for item in items:
        row = rows[item.view]
        if item.view in MAPS:
            row = row.half() if item.form == "map" else row.mean((2, 3))
        views[str(item.view)] = ViewRows((row.numpy(),), (None,) * len(splits))
    targets = np.eye(CATEGORIES, dtype=np.float32)[np.arange(len(splits)) % CATEGORIES]
    ids = tuple(f"s{number}" for number in range(len(splits)))
    index = SubjectIndex(ids, splits, targets, tuple("ABCDE"), False)
    return TrialInputs(index, views, ConfounderDictionary.random(6, 12, seed=1))


def losses(name, deconfounder, folder):
    """Loss of every step: an epoch has one."""
    baseline, options = BASELINES[name]
    items = inputs_of(baseline, options)
    pictured = [str(item.view) for item in items if item.form != "geometry"]
    trunk = {"arch": "thin_resnet", "weights": "random"}
    experiment = Experiment.parse(
        {
            "dataset": "caer_s",
            "baseline": baseline,
            "baseline_options": options,
            "trunks": dict.fromkeys(pictured, trunk),
            "backbone": trunk,
            "deconfounder": deconfounder,
            "modality_weight": 1.0 if baseline == "emoticon" else 0.0,
            "schedule": "constant",
            "learning_rate": LEARNING_RATE.get(baseline, 1e-3),
            "epochs": STEPS,
            "batch_size": TRAIN,
        }
    )
    inputs = make_inputs(items)

    def build():
        block = build_baseline(baseline, {view: DIMS[view] for view in pictured}, CATEGORIES, options)
        ccim = CCIM(block.joint_dim, inputs.dictionary) if deconfounder == "ccim" else None
        return Recogniser(block, items, CATEGORIES, ccim)

    train(experiment, inputs, build, Path(folder))
    return [line.metrics["train/loss"] for line in read_journal(Path(folder) / "journal.jsonl")]


def golden_text():
    """Loss of every step, as exact hexadecimal floats."""
    lines = []
    for name, deconfounder in CASES:
        with tempfile.TemporaryDirectory() as folder:
            for step, loss in enumerate(losses(name, deconfounder, folder)):
                lines.append(f"{name}\t{deconfounder}\t{step}\t{loss.hex()}\t{loss:.6f}\n")
    return "".join(lines)


def kept_losses(name, deconfounder):
    rows = [line.split("\t") for line in GOLDEN.read_text().splitlines()]
    return [float.fromhex(row[3]) for row in rows if row[:2] == [name, deconfounder]]


@kept_for_x86
def test_curves_are_exactly_those_kept():
    assert printed_by(__file__) == GOLDEN.read_text()


@pytest.mark.parametrize(("name", "deconfounder"), CASES)
def test_curves_in_this_process_are_close_to_those_kept(name, deconfounder, tmp_path):
    found, kept = losses(name, deconfounder, tmp_path), kept_losses(name, deconfounder)
    assert found[:5] == pytest.approx(kept[:5], rel=1e-4)
    assert found == pytest.approx(kept, rel=0.02)  # later steps grow what kernels round otherwise


@pytest.mark.parametrize(("name", "deconfounder"), CASES)
def test_what_is_kept_falls(name, deconfounder):
    kept = kept_losses(name, deconfounder)
    assert len(kept) == STEPS
    assert np.mean(kept[-3:]) < 0.96 * np.mean(kept[:3])


if __name__ == "__main__":
    sys.stdout.write(golden_text())
