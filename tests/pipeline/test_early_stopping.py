"""ASHA as the search sets it up: whom it stops, and that a new process knows those of the old one."""

import fcntl
from types import SimpleNamespace

import pytest

from ccim_ray.errors import RequestError
from ccim_ray.pipeline.search import run_search
from ccim_ray.pipeline.tuning import EarlyStopping
from ccim_ray.search_flags import SearchFlags
from ccim_ray.searching import search_request
from search_spaces.hyperparameters import hyperparameters_space

GOOD = {epochs: 0.5 + 0.01 * epochs for epochs in range(1, 16)}


def decisions(stopping, name, values):
    """What ASHA says of a trial at each of its epochs."""
    trial = SimpleNamespace(trial_id=name)
    stopping.scheduler.on_trial_add(None, trial)
    return [
        stopping.scheduler.on_trial_result(None, trial, {"epochs": epochs, "value": value})
        for epochs, value in values.items()
    ]


@pytest.fixture
def stopping():
    stopping = EarlyStopping(epochs=15, grace_epochs=3, reduction_factor=3)
    for number in range(3):
        stopping.remember(f"trial {number}", GOOD)
    return stopping


def test_what_is_behind_those_of_an_earlier_run_is_stopped_when_grace_ends(stopping):
    assert decisions(stopping, "new", {1: 0.1, 2: 0.1, 3: 0.1}) == ["CONTINUE", "CONTINUE", "STOP"]


def test_what_falls_behind_later_is_stopped_at_the_next_rung(stopping):
    values = dict.fromkeys(range(1, 10), 0.54)
    assert decisions(stopping, "new", values) == ["CONTINUE"] * 8 + ["STOP"]


def test_what_keeps_up_is_never_stopped(stopping):
    values = {epochs: 0.6 + 0.01 * epochs for epochs in range(1, 15)}
    assert set(decisions(stopping, "new", values)) == {"CONTINUE"}


def test_the_first_trials_are_not_stopped():
    stopping = EarlyStopping(epochs=15, grace_epochs=3, reduction_factor=3)
    assert set(decisions(stopping, "first", dict.fromkeys(range(1, 15), 0.1))) == {"CONTINUE"}


def test_the_same_search_twice_at_a_time_is_refused(tmp_path):
    flags = SearchFlags(preset="smoke", storage=str(tmp_path))
    space = hyperparameters_space(flags.experiment(), flags.chosen_sizes(), flags.fixed())
    request = search_request(flags, space, ["jobs/tune_hyperparameters.py"])
    folder = request.folder(request.plan())
    folder.mkdir(parents=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RequestError, match="running already"):
            run_search(request)
