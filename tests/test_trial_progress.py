"""Counts, time left and the best so far follow from what was measured: journals and results as trials write them."""

import pytest

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.journal import Journal
from ccim_ray.plan import make_plan
from ccim_ray.presets import default_experiment
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import TrialResult
from ccim_ray.trial_progress import Counts, TrialsProgress, kind_of


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def trials(tmp_path):
    base = default_experiment("confounded_scenes", "smoke", WorldSettings(images=300)).with_changes(epochs=4)
    slow = default_experiment("confounded_scenes", "smoke", WorldSettings(images=300), "caer_net").with_changes(
        epochs=4
    )
    settings = [("vanilla", base.with_changes(deconfounder="none")), ("slow", slow.with_changes(deconfounder="none"))]
    return make_plan(settings, (0, 1), Storage(tmp_path), None).trials


def folder(planned):
    from pathlib import Path

    return Path(planned.trial.paths.folder)


def epochs(planned, *values):
    with Journal(folder(planned) / "journal.jsonl") as journal:
        journal.rewind(-1)
        for step, value in enumerate(values):
            journal.append(step, {"train/loss": 1.0, "val/accuracy": value})


def done(planned, value):
    result = TrialResult("done", {"val/accuracy": value, "test_do/accuracy": 0.9}, 1, 4, None, 8.0)
    write_json(folder(planned) / "result.json", result.as_dict())


def watch(trials, clock, at_a_time=2):
    kinds = [kind_of(planned.trial.experiment) for planned in trials]
    return TrialsProgress(kinds, at_a_time, 50, "accuracy", lambda planned: planned.setting, clock)


def test_trials_are_counted_by_what_they_do(trials):
    clock = Clock()
    progress = watch(trials, clock)
    assert (progress.counts, progress.total) == (Counts(0, 0, 4, 0), 4)
    assert (progress.seconds_left, progress.images_per_second, progress.best) == (None, None, None)
    progress.started(trials[0])
    progress.started(trials[2])
    assert progress.counts == Counts(0, 2, 2, 0)
    progress.started(trials[0])  # again, after its process died
    assert progress.counts == Counts(0, 2, 2, 0)
    progress.ended(trials[0], failed=True)
    progress.ended(trials[2], failed=False)
    assert (progress.counts, progress.total) == (Counts(1, 0, 2, 1), 4)


def test_the_time_left_is_that_of_measured_epochs_and_trials_of_the_same_kind(trials):
    clock = Clock()
    progress = watch(trials, clock)
    progress.started(trials[0])
    progress.started(trials[2])
    clock.now += 10
    epochs(trials[0], 0.1)
    assert [(epoch, metrics["val/accuracy"]) for _, epoch, metrics in progress.poll()] == [(0, 0.1)]
    # 4 epochs of 10 s; of the other kind nothing is known, so it counts as 40 s too: 30 + 30 + 40 + 40 over two
    assert progress.seconds_left == pytest.approx(70)
    assert progress.images_per_second == pytest.approx(50 / 10)
    clock.now += 10
    epochs(trials[2], 0.1)
    progress.poll()
    done(trials[0], 0.3)
    progress.ended(trials[0], failed=False)
    # 20 s for one of the first kind, 80 s for one of the second, of which 60 s are left
    assert progress.seconds_left == pytest.approx((20 + 60 + 80) / 2)
    assert progress.poll() == []


def test_an_epoch_that_is_trained_again_is_told_again_and_not_counted_twice(trials):
    clock = Clock()
    epochs(trials[0], 0.1, 0.2, 0.3)
    progress = watch(trials, clock)
    progress.started(trials[0])  # goes on after three epochs, as its journal says
    epochs(trials[0], 0.1)  # the checkpoint was older
    assert progress.poll() == []
    epochs(trials[0], 0.1, 0.5)
    clock.now += 4
    assert [epoch for _, epoch, _ in progress.poll()] == [1]
    assert progress.images_per_second == pytest.approx(50 / 4)
    (running,) = progress.running
    assert (running.epochs, running.of, running.value) == (2, 4, 0.5)


def test_the_best_is_that_of_validation_whether_it_ended_now_or_earlier(trials):
    progress = watch(trials[1:], Clock())
    done(trials[0], 0.6)
    progress.know(trials[0])
    done(trials[1], 0.5)
    progress.ended(trials[1], failed=False)
    assert (progress.best.title, progress.best.value) == ("vanilla", 0.6)
    done(trials[2], 0.7)
    progress.ended(trials[2], failed=False)
    assert (progress.best.title, progress.best.value) == ("slow", 0.7)
