"""The head grid ends as trials of their own do, and no trial's trouble keeps the others from ending."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from head_trials import SETTINGS, head_trial, write_inputs

from ccim_ray.pipeline.interruption import Interruption
from ccim_ray.resources import TrialResources
from ccim_ray.trial import run_trial, threads_of_a_trial
from ccim_ray.trial_folder import read_result


@pytest.fixture(scope="module")
def inputs(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(small_world, folder)
    return folder


@pytest.fixture
def one_thread():
    """As in the grid's processes: with several, sums are taken in another order."""
    threads = torch.get_num_threads()
    threads_of_a_trial()
    yield
    torch.set_num_threads(threads)


def grid_of(trials, cluster, at_a_time=2):
    """Run them; reasons by signature, in the order of their ends."""
    from ccim_ray.pipeline.head_grid import run_head_grid

    ends = []
    run_head_grid(
        trials, cluster, TrialResources(at_a_time, 0), lambda trial, reason: ends.append((trial.signature, reason))
    )
    assert len(dict(ends)) == len(ends) == len(trials)
    return dict(ends)


@pytest.mark.usefixtures("one_thread")
def test_equal_to_separate_trials_and_trouble_stays_where_it_is(inputs, tmp_path, cluster):
    """One trial's loss is not finite, another's checkpoint is damaged; the others end to the bit as on their own."""
    good = [head_trial(inputs, tmp_path / "grid", name, seed) for name in SETTINGS for seed in (0, 1)]
    diverging = head_trial(inputs, tmp_path / "grid", "dot", 2, learning_rate=1e30)
    damaged = head_trial(inputs, tmp_path / "grid", "vanilla", 3)
    checkpoint = Path(damaged.paths.folder) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"damaged")

    reasons = grid_of([damaged, diverging, *good], cluster)

    assert str(checkpoint) in reasons.pop(damaged.signature)
    assert "damaged" in json.loads((checkpoint.parent / "failure.json").read_text())["reason"]
    assert set(reasons.values()) == {None}
    assert read_result(Path(diverging.paths.folder)).status == "diverged"
    for name in SETTINGS:
        for seed in (0, 1):
            apart = head_trial(inputs, tmp_path / "apart", name, seed)
            run_trial(apart)
            folders = tmp_path / "grid" / f"{name}-{seed}", tmp_path / "apart" / f"{name}-{seed}"
            results = [read_result(folder) for folder in folders]
            assert results[0].metrics == results[1].metrics
            for file in ("best.safetensors", "scores.safetensors"):
                assert folders[0].joinpath(file).read_bytes() == folders[1].joinpath(file).read_bytes()


def title(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()


def descendants(process: int) -> list[int]:
    """Ids of the processes that this one started, and of those that they did."""
    children = [
        int(child)
        for thread in Path(f"/proc/{process}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return children + [each for child in children for each in descendants(child)]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_more_processes_than_cpus_take_turns(inputs, tmp_path, cluster):
    several = cluster.cpus + 2
    trials = [head_trial(inputs, tmp_path, "dot", seed) for seed in range(several)]
    assert set(grid_of(trials, cluster, at_a_time=several).values()) == {None}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_trial_whose_process_dies_each_time_is_given_up_and_the_others_are_done(inputs, tmp_path, cluster):
    trials = [head_trial(inputs, tmp_path, "additive", seed, epochs=400 if seed else 10**6) for seed in range(3)]
    (lethal, *others), killed, ended = trials, [], threading.Event()

    def kill_each():
        lock = Path(lethal.paths.folder) / "journal.jsonl"
        while not ended.is_set():
            for process in descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    opened = {str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()}
                    if str(lock) in opened and process not in killed:
                        killed.append(process)
                        os.kill(process, signal.SIGKILL)
            time.sleep(0.1)

    killer = threading.Thread(target=kill_each)
    killer.start()
    try:
        reasons = grid_of(trials, cluster)
    finally:
        ended.set()
        killer.join()
    assert reasons.pop(lethal.signature).startswith("its process died 3 times")
    assert len(killed) == 3
    assert reasons == dict.fromkeys((trial.signature for trial in others), None)


def stopped_while_training(inputs, tmp_path, cluster, more, at_request=lambda: None):
    """Run heads without end, ``more`` than can train at once; ask for a stop when these do. Returns how many began."""
    from ccim_ray.pipeline.head_grid import run_head_grid

    at_a_time = cluster.cpus + more
    trials = [head_trial(inputs, tmp_path, "additive", seed, epochs=10**6) for seed in range(at_a_time)]
    interruption, begun, ends = Interruption(), [], []

    def request():
        while len(list(tmp_path.glob("*/journal.jsonl"))) < cluster.cpus:
            time.sleep(0.05)
        interruption.request()
        at_request()

    asking = threading.Thread(target=request, daemon=True)
    asking.start()
    resources = TrialResources(at_a_time, 0)
    run_head_grid(trials, cluster, resources, lambda trial, _: ends.append(trial), begun.append, interruption)
    asking.join()
    assert ends == []
    assert not list(tmp_path.glob("*/failure.json"))
    return len(begun)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_stop_does_not_wait_for_a_process_that_is_not_there_yet(inputs, tmp_path, cluster):
    assert stopped_while_training(inputs, tmp_path, cluster, more=2) == cluster.cpus
    assert len(list(tmp_path.glob("*/checkpoint.pt"))) == cluster.cpus


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_dies_after_the_request_to_stop_is_no_failure(inputs, tmp_path, cluster):
    killed = []

    def kill_all():
        for process in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                if "_HeadTrainer.train" in title(process):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    assert stopped_while_training(inputs, tmp_path, cluster, 0, kill_all) == cluster.cpus
    assert len(killed) == cluster.cpus


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_its_trial_trained_again(inputs, tmp_path, cluster):
    trials = [head_trial(inputs, tmp_path, "additive", seed, epochs=400) for seed in range(2)]
    killed = []

    def kill_one():
        journal = tmp_path / "additive-0" / "journal.jsonl"
        while not journal.exists() or not journal.read_bytes():
            time.sleep(0.05)
        trainer = next(process for process in descendants(os.getpid()) if "_HeadTrainer.train" in title(process))
        os.kill(trainer, signal.SIGKILL)
        killed.append(trainer)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert grid_of(trials, cluster) == {"additive-0": None, "additive-1": None}
    killer.join()
    assert killed
    assert all(read_result(Path(trial.paths.folder)).epochs == 400 for trial in trials)
