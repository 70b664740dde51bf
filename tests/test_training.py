"""Training repeats itself to the bit, wherever it was interrupted, and says when it diverged.

Run as a program, this file prints the loss curves that tests/golden keeps:
    ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 \\
        python tests/test_training.py > tests/golden/loss_curves.txt
"""

import math
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_programs import kept_for_x86, printed_by
from safetensors.torch import load_file
from tiny_trials import CATEGORIES, SPLITS, WIDTH, curve, make_experiment, make_inputs, run

from ccim_ray.metrics import evaluate, evaluate_agents
from ccim_ray.prepared import TrialInputs, ViewRows
from ccim_ray.training import learning_rate_factor

GOLDEN = Path(__file__).parent / "golden" / "loss_curves.txt"


def left_behind(folder):
    """All that a trial is judged by, apart from times."""
    files = ("best.safetensors", "scores.safetensors")
    return curve(folder), {name: (Path(folder) / name).read_bytes() for name in files}


def outcome(result):
    return result.status, result.metrics, result.best_epoch, result.epochs, result.diverged_at_step


SETTINGS = {
    "single-label vanilla": (False, {"deconfounder": "none"}),
    "single-label CCIM": (False, {}),
    "multi-label vanilla": (True, {"deconfounder": "none", "loss": "weighted_mse"}),
    "multi-label CCIM": (True, {"loss": "weighted_mse", "optimiser": "sgd", "schedule": "step", "epochs": 9}),
}


def golden_text():
    """Loss of every epoch, as exact hexadecimal floats."""
    lines = []
    for name, (multi_label, changes) in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            run(folder, make_inputs(multi_label=multi_label), **{"epochs": 10, **changes})
            for epoch, metrics in enumerate(curve(folder)):
                loss = metrics["train/loss"]
                lines.append(f"{name}\t{epoch}\t{loss.hex()}\t{loss:.6f}\n")
    return "".join(lines)


@kept_for_x86
def test_loss_curves_are_exactly_those_kept():
    assert printed_by(__file__) == GOLDEN.read_text()


@pytest.mark.parametrize("name", SETTINGS)
def test_loss_curves_in_this_process_are_close_to_those_kept(name, tmp_path):
    multi_label, changes = SETTINGS[name]
    run(tmp_path, make_inputs(multi_label=multi_label), **{"epochs": 10, **changes})
    kept = [line.split("\t") for line in GOLDEN.read_text().splitlines()]
    expected = [float.fromhex(row[2]) for row in kept if row[0] == name]
    found = [metrics["train/loss"] for metrics in curve(tmp_path)]
    assert found[:1] == pytest.approx(expected[:1], rel=1e-4)
    assert found == pytest.approx(expected, rel=0.02)  # later steps grow what kernels round otherwise


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["single-label CCIM", "multi-label CCIM"])
@pytest.mark.parametrize("epoch", [0, 2, 5])
@pytest.mark.parametrize("moment", ["after the checkpoint", "between journal and checkpoint"])
def test_an_interrupted_trial_ends_as_if_it_had_not_been(tmp_path, name, epoch, moment):
    multi_label, changes = SETTINGS[name]
    inputs = make_inputs(multi_label=multi_label)
    straight = run(tmp_path / "straight", inputs, **changes)

    folder = tmp_path / "interrupted"
    checkpoint, previous = folder / "checkpoint.pt", tmp_path / "previous.pt"

    def interrupt(now, metrics):
        if now == epoch:
            raise Killed
        shutil.copy(checkpoint, previous)

    with pytest.raises(Killed):
        run(folder, inputs, interrupt, **changes)
    assert len(curve(folder)) == epoch + 1
    if moment == "between journal and checkpoint":
        checkpoint.unlink()
        if epoch:
            shutil.copy(previous, checkpoint)

    resumed_at = []
    resumed = run(folder, inputs, lambda now, metrics: resumed_at.append(now), **changes)
    first = epoch + (moment == "after the checkpoint")
    assert resumed_at == list(range(first, make_experiment(**changes).epochs))
    assert outcome(resumed) == outcome(straight)
    assert left_behind(folder) == left_behind(tmp_path / "straight")


def test_a_trial_killed_while_testing_only_tests_again(tmp_path):
    inputs = make_inputs()
    straight = run(tmp_path, inputs)
    before = left_behind(tmp_path)
    (tmp_path / "scores.safetensors").unlink()
    again = run(tmp_path, inputs, lambda epoch, metrics: pytest.fail("trained again"))
    assert outcome(again) == outcome(straight)
    assert left_behind(tmp_path) == before
    assert again.seconds == straight.seconds > 0


def test_the_same_seed_repeats_and_another_does_not(tmp_path):
    inputs = make_inputs()
    torch.rand(3)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        run(tmp_path / name, inputs, seed=seed)
        torch.manual_seed(99)  # what happened before must not matter
    assert left_behind(tmp_path / "one") == left_behind(tmp_path / "same")
    losses = [curve(tmp_path / name)[0]["train/loss"] for name in ("one", "other")]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", SETTINGS)
def test_what_can_be_learnt_is_learnt(tmp_path, name):
    multi_label, changes = SETTINGS[name]
    inputs = make_inputs(multi_label=multi_label, noise=0.1)
    changes = {**changes, "epochs": 40, "schedule": "one_cycle", "optimiser": "adamw"}
    result = run(tmp_path, inputs, **changes)
    metric = "mAP" if multi_label else "accuracy"
    assert result.status == "done"
    assert result.metrics[f"test_do/{metric}"] > 0.95
    losses = [metrics["train/loss"] for metrics in curve(tmp_path)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_result_is_that_of_the_best_epoch_on_the_saved_scores(tmp_path, multi_label):
    inputs = make_inputs(multi_label=multi_label)
    result = run(tmp_path, inputs, epochs=8)
    key = "val/mAP" if multi_label else "val/accuracy"
    values = [metrics[key] for metrics in curve(tmp_path)]
    assert result.best_epoch == values.index(max(values))
    assert result.metrics[key] == max(values)
    assert result.epochs == 8
    scores = load_file(tmp_path / "scores.safetensors")
    for split in ("val", "test_id", "test_do"):
        rows = inputs.rows(split)
        assert scores[split].shape == (len(rows), 4)
        np.testing.assert_array_equal(scores[f"{split}/targets"], inputs.index.targets[rows])
        expected = evaluate(scores[split].numpy(), inputs.index.targets[rows], CATEGORIES, multi_label)
        assert {name: result.metrics[f"{split}/{name}"] for name in expected} == expected
    assert not any(name.startswith("train") for name in result.metrics)


def test_agents_are_scored_by_the_probabilities_of_their_frames(tmp_path):
    alone = make_inputs(multi_label=True)
    agents = np.array([f"agent {number // 3}" for number in range(len(alone.index.splits))])
    inputs = replace(alone, index=replace(alone.index, agents=agents))
    result = run(tmp_path / "agents", inputs)
    scores = load_file(tmp_path / "agents" / "scores.safetensors")
    for split in ("val", "test_id", "test_do"):
        rows = inputs.rows(split)
        probabilities = 1 / (1 + np.exp(-scores[split].numpy().astype(np.float64)))
        expected = evaluate_agents(probabilities, inputs.index.targets[rows], agents[rows], CATEGORIES)
        assert {name: result.metrics[f"{split}/{name}"] for name in expected} == pytest.approx(expected)
    without = run(tmp_path / "alone", alone).metrics
    assert {name: value for name, value in result.metrics.items() if "agent" not in name} == without


def with_counterfactuals(inputs, views_of):
    """Every subject of test_do once more; ``views_of`` (name, its rows) gives what is seen in the other scene."""
    own = inputs.rows("test_do")
    views = {}
    for name, view in inputs.views.items():
        rows = view.take(np.arange(len(view)))
        seen = np.concatenate([rows, views_of(name, rows[own])]).astype(np.float32)
        views[name] = ViewRows((seen,), (*view.reasons, *[None] * len(own)))
    index = replace(
        inputs.index,
        subject_ids=(*inputs.index.subject_ids, *(f"{inputs.index.subject_ids[row]} again" for row in own)),
        splits=np.concatenate([inputs.index.splits, np.repeat("counterfactual", len(own))]),
        targets=np.concatenate([inputs.index.targets, inputs.index.targets[own]]),
        factual_rows=np.concatenate([np.full(len(inputs.index.splits), -1), own]),
    )
    return TrialInputs(index, views, inputs.dictionary)


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_another_scene_changes_is_that_of_the_saved_scores(tmp_path, multi_label):
    alone = make_inputs(multi_label=multi_label)
    inputs = with_counterfactuals(alone, lambda name, rows: rows[::-1] if name == "context" else rows)
    result = run(tmp_path / "both", inputs)
    scores = {name: value.double() for name, value in load_file(tmp_path / "both" / "scores.safetensors").items()}
    own, swapped = scores["test_do"][scores["test_do/counterfactual_of"].long()], scores["test_do/counterfactual"]
    assert own.shape == swapped.shape == (15, 4)
    flipped = own.argmax(1) != swapped.argmax(1)
    change = (own.sigmoid() - swapped.sigmoid()) if multi_label else (own.softmax(1) - swapped.softmax(1))
    distance = change.abs().mean(1) if multi_label else change.abs().sum(1) / 2
    assert result.metrics["test_do/flip_rate"] == pytest.approx(flipped.double().mean().item())
    assert result.metrics["test_do/scene_tv"] == pytest.approx(distance.mean().item())
    assert 0 < result.metrics["test_do/flip_rate"] < 1
    # Nothing else moves: not the curve, not the other metrics, and no split has these that nobody is seen twice in.
    without = run(tmp_path / "alone", alone).metrics
    added = {"test_do/flip_rate", "test_do/scene_tv"}
    assert {name: value for name, value in result.metrics.items() if name not in added} == without
    assert curve(tmp_path / "both") == curve(tmp_path / "alone")


def test_a_model_blind_to_the_scene_never_flips_and_one_that_sees_nothing_else_nearly_always(tmp_path):
    learnt = make_inputs(noise=0.1)
    blank = {name: np.zeros((len(view), WIDTH), np.float32) for name, view in learnt.views.items()}
    category = learnt.index.targets.argmax(1)
    elsewhere = [np.flatnonzero(category == (k + 1) % 4)[0] for k in category[learnt.rows("test_do")]]
    scenes = learnt.views["context"].take(np.array(elsewhere))

    def metrics(blank_view):
        views = learnt.views | {blank_view: replace(learnt.views[blank_view], shards=(blank[blank_view],))}
        inputs = TrialInputs(learnt.index, views, learnt.dictionary)
        moved = with_counterfactuals(inputs, lambda name, rows: scenes if name == "context" != blank_view else rows)
        return run(tmp_path / blank_view, moved, epochs=20).metrics

    of_subject, of_scene = metrics(blank_view="context"), metrics(blank_view="body")
    assert (of_subject["test_do/flip_rate"], of_subject["test_do/scene_tv"]) == (0, 0)
    assert of_scene["test_do/flip_rate"] > 0.9
    assert of_scene["test_do/scene_tv"] > 0.3


def test_neither_test_subjects_nor_unusable_ones_take_part(tmp_path):
    inputs = make_inputs()
    run(tmp_path / "one", inputs)
    unseen = [*np.flatnonzero(np.char.startswith(inputs.index.splits, "test")), SPLITS["train"] - 1]
    for view in inputs.views.values():
        view.shards[0][unseen] = 100.0
    run(tmp_path / "other", inputs)
    assert curve(tmp_path / "one") == curve(tmp_path / "other")
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("one", "other")]
    assert best[0] == best[1]


def test_patience_stops_and_stays_stopped(tmp_path):
    inputs = make_inputs(noise=100.0)
    result = run(tmp_path, inputs, epochs=60, patience=4)
    assert result.epochs < 60
    assert result.epochs - 1 - result.best_epoch == 4
    again = run(
        tmp_path,
        inputs,
        lambda epoch, metrics: pytest.fail("a stopped trial trained on"),
        epochs=60,
        patience=4,
    )
    assert outcome(again) == outcome(result)
    assert len(curve(tmp_path)) == result.epochs


def test_a_batch_larger_than_the_train_split_takes_all_of_it(tmp_path):
    inputs = make_inputs()
    result = run(tmp_path / "large", inputs, batch_size=4096)
    run(tmp_path / "exact", inputs, batch_size=SPLITS["train"] - 1)
    assert result.status == "done"
    assert left_behind(tmp_path / "large") == left_behind(tmp_path / "exact")


@pytest.mark.parametrize("batch_size", [16, 4096])
@pytest.mark.parametrize("changes", [{}, {"optimiser": "sgd"}, {"deconfounder": "none"}])
def test_a_diverged_trial_is_a_result_with_its_step(tmp_path, changes, batch_size):
    result = run(tmp_path, make_inputs(), learning_rate=1e20, batch_size=batch_size, **changes)
    assert result.status == "diverged"
    assert result.metrics == {}
    steps_per_epoch = max(1, (SPLITS["train"] - 1) // batch_size)
    # The first step starts from sound weights; what it makes of them shows at once.
    assert 0 <= result.diverged_at_step < 2 * steps_per_epoch
    assert result.epochs == result.diverged_at_step // steps_per_epoch
    assert not (tmp_path / "scores.safetensors").exists()


def test_a_trial_that_diverges_later_keeps_its_earlier_epochs(tmp_path):
    inputs = make_inputs()
    run(tmp_path, inputs, epochs=3)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    checkpoint["model"]["classifier.weight"][0, 0] = math.nan
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    result = run(tmp_path, inputs, epochs=6)
    assert (result.status, result.epochs, result.diverged_at_step) == ("diverged", 3, 9)
    assert len(curve(tmp_path)) == 3


def test_the_step_schedule_divides_by_ten_every_seven_epochs_or_as_many_as_it_is_told():
    def factors(experiment, *epochs):
        return [learning_rate_factor(experiment, epoch, epoch * 5, 100) for epoch in epochs]

    every_seven = make_experiment(schedule="step")
    assert factors(every_seven, 0, 6, 7, 13, 14, 21) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])
    every_four = make_experiment(schedule="step", step_epochs=4)
    assert factors(every_four, 0, 3, 4, 7, 8) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_the_one_cycle_schedule_rises_linearly_and_falls_as_a_cosine():
    def factor(step, total=40):
        return learning_rate_factor(make_experiment(schedule="one_cycle"), 0, step, total)

    assert [factor(step) for step in range(6)] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert factor(6) == 1
    assert factor(6 + 17) == pytest.approx(0.5)
    assert factor(39) == pytest.approx((1 + math.cos(math.pi * 33 / 34)) / 2)
    assert factor(0, total=1) == 1
    falling = [factor(step) for step in range(6, 40)]
    assert falling == sorted(falling, reverse=True)
    assert min(factor(step) for step in range(40)) > 0


def test_the_constant_schedule_is_constant():
    constant = make_experiment(schedule="constant")
    assert {learning_rate_factor(constant, step // 5, step, 40) for step in range(40)} == {1.0}


if __name__ == "__main__":
    sys.stdout.write(golden_text())
