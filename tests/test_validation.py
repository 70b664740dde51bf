"""What a search may know of a trial is its validation split, and nothing else."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ccim_ray.errors import RequestError
from ccim_ray.journal import Journal
from ccim_ray.reports.trial_report import draw_trial_figures
from ccim_ray.sealed_files import sealed
from ccim_ray.validation import best_so_far, standard_error


@pytest.fixture
def trial(tmp_path):
    """Folder of a trial: 200 validation subjects, 60 % of them right; test scores that would mislead."""
    with Journal(tmp_path / "journal.jsonl") as journal:
        for step, value in enumerate((0.4, 0.6, 0.5)):
            journal.append(step, {"train/loss": 1.0, "val/accuracy": value, "test/accuracy": 0.99})
    targets_SK = np.tile(np.array([[1.0, 0.0]], np.float32), (200, 1))
    right_SK = np.where(np.arange(200)[:, None] < 120, targets_SK, 1 - targets_SK).astype(np.float32)
    arrays = {"val": right_SK, "val/targets": targets_SK, "test": targets_SK, "test/targets": targets_SK}
    save_file(arrays, tmp_path / "scores.safetensors")
    (tmp_path / "categories.json").write_text(json.dumps({"names": ["a", "b"], "multi_label": False}))
    (tmp_path / "result.json").write_text(json.dumps({"status": "done", "metrics": {"test/accuracy": 0.99}}))
    return tmp_path


def test_the_objective_is_the_best_epoch_so_far_on_validation(trial):
    assert best_so_far(trial, "accuracy") == [0.4, 0.6, 0.6]


def test_nothing_of_the_test_splits_is_read(trial):
    before = best_so_far(trial, "accuracy"), standard_error(trial, "accuracy")
    scores = load_file(trial / "scores.safetensors")
    save_file({name: array for name, array in scores.items() if name.startswith("val")}, trial / "scores.safetensors")
    (trial / "result.json").unlink()
    assert (best_so_far(trial, "accuracy"), standard_error(trial, "accuracy")) == before


def test_a_test_metric_cannot_be_asked_for(trial):
    with pytest.raises(KeyError):
        best_so_far(trial, "test/accuracy")


def test_the_standard_error_is_that_of_a_share(trial):
    assert standard_error(trial, "accuracy") == pytest.approx(np.sqrt(0.6 * 0.4 / 200), rel=0.2)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_scores_that_are_damaged_are_told_and_nothing_is_made_of_them(trial, damage):
    path = trial / "scores.safetensors"
    content = bytearray(sealed(path.read_bytes()))
    content[-3] ^= 64  # of a target
    path.write_bytes(content[:-8] if damage == "cut" else content)
    if damage == "gone":
        path.unlink()
    for use in (lambda: standard_error(trial, "accuracy"), lambda: draw_trial_figures(trial, trial / "figures")):
        with pytest.raises(RequestError, match=r"scores\.safetensors is missing or damaged \(.*\); delete"):
            use()


def test_no_epoch_yet_is_no_value(tmp_path):
    assert best_so_far(tmp_path, "accuracy") == []
