"""Numbers that no training can use end in a stated result or an error of one line, never in a wrong number."""

import math

import numpy as np
import pytest
from tiny_trials import SPLITS, curve, make_inputs, run

from ccim_ray.errors import RequestError


def with_features(view, split, value, inputs=None):
    """Inputs whose first subject of the split has this value as its first feature."""
    inputs = inputs or make_inputs()
    row = int(np.flatnonzero(inputs.index.splits == split)[0])
    inputs.views[view].shards[0][row, 0] = value
    return inputs


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("split", ["train", "val"])
def test_features_that_are_no_numbers_end_a_trial_as_diverged(tmp_path, split, value):
    result = run(tmp_path, with_features("context", split, value))
    assert (result.status, result.metrics, result.epochs) == ("diverged", {}, 0)


@pytest.mark.parametrize("split", ["test_id", "test_do"])
def test_a_test_split_with_scores_that_are_no_numbers_is_an_error_and_no_gap_in_the_table(tmp_path, split):
    with pytest.raises(RequestError, match=f"^{split}: 1 of 15 subjects get scores that are NaN or infinite$"):
        run(tmp_path, with_features("body", split, math.nan))


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_category_that_nobody_in_val_has_is_left_out_and_the_rest_counts(tmp_path, multi_label):
    inputs = make_inputs(multi_label=multi_label)
    targets = inputs.index.targets
    of_val = inputs.index.splits == "val"
    targets[of_val & (targets[:, 2] == 1)] = np.eye(4)[0]
    result = run(tmp_path, inputs, **({"loss": "weighted_mse"} if multi_label else {}))
    name = "AP" if multi_label else "recall"
    assert result.status == "done"
    assert {key for key in result.metrics if key.startswith(f"val/{name}/")} == {
        f"val/{name}/{category}" for category in ("Anger", "Fear", "Sad")
    }
    if multi_label:
        mean = np.mean([result.metrics[f"val/AP/{category}"] for category in ("Anger", "Fear", "Sad")])
        assert result.metrics["val/mAP"] == pytest.approx(mean)


def test_where_all_have_one_category_it_is_learnt_and_nothing_else_is_claimed(tmp_path):
    inputs = make_inputs()
    inputs.index.targets[:] = np.eye(4)[1]
    result = run(tmp_path, inputs)
    assert result.status == "done"
    assert {key for key in result.metrics if key.startswith("test_do/")} == {"test_do/accuracy", "test_do/recall/Fear"}
    assert result.metrics["test_do/accuracy"] == 1


def test_features_that_are_all_alike_teach_what_is_most_frequent(tmp_path):
    inputs = make_inputs()
    for view in inputs.views.values():
        view.shards[0][:] = 1.0
    result = run(tmp_path, inputs)
    of_val = inputs.index.targets[inputs.index.splits == "val"]
    shares = of_val.mean(0)
    assert result.status == "done"
    assert min(abs(result.metrics["val/accuracy"] - shares)) < 1e-6  # everybody gets the same answer


def test_a_train_split_of_two_is_one_batch(tmp_path):
    inputs = make_inputs()
    inputs.index.splits[2 : SPLITS["train"]] = "unused"
    assert run(tmp_path, inputs, epochs=2).status == "done"
    assert len(curve(tmp_path)) == 2
