"""Trials that follow each other in a process read each file once, and end as in processes of their own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from head_trials import SETTINGS, head_trial, write_inputs

from ccim_ray.errors import RequestError
from ccim_ray.journal import read_journal
from ccim_ray.prepared import ResidentInputs
from ccim_ray.trial import run_trial
from ccim_ray.trial_folder import read_result


@pytest.fixture(scope="module")
def inputs(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(small_world, folder)
    return folder


def test_each_trial_gets_its_own_inputs_though_no_file_is_read_twice(inputs, tmp_path):
    there = tmp_path / "inputs"
    shutil.copytree(inputs, there)
    resident = ResidentInputs()
    apart = {name: head_trial(inputs, tmp_path, name).paths.read() for name in SETTINGS}
    for _ in range(2):
        for name, alone in apart.items():
            ours = resident.read(head_trial(there, tmp_path, name).paths)
            assert ours.index.subject_ids == alone.index.subject_ids
            assert list(ours.views) == list(alone.views)
            rows = np.arange(len(alone.index.splits))
            for view in alone.views:
                np.testing.assert_array_equal(ours.views[view].take(rows), alone.views[view].take(rows))
            sizes = [len(read.dictionary.prior_N) if read.dictionary else None for read in (ours, alone)]
            assert sizes[0] == sizes[1]
        shutil.rmtree(there, ignore_errors=True)  # the second time round, nothing is left to read
    with pytest.raises(RequestError, match="missing or damaged"):
        ResidentInputs().read(head_trial(there, tmp_path, "vanilla").paths)


def ended(folder: Path):
    result = read_result(folder)
    assert result is not None
    metrics = [line.metrics for line in read_journal(folder / "journal.jsonl")]
    weights = [(folder / f"{name}.safetensors").read_bytes() for name in ("best", "scores")]
    return result.status, result.metrics, result.best_epoch, metrics, weights


def test_one_after_the_other_ends_as_apart_to_the_bit(inputs, tmp_path):
    resident = ResidentInputs()
    for name in (*SETTINGS, "vanilla"):
        seed = 1 if (tmp_path / "grid" / f"{name}-0").exists() else 0
        ours, apart = (head_trial(inputs, tmp_path / where, name, seed) for where in ("grid", "apart"))
        run_trial(ours, read=resident.read, checkpoint_seconds=60)
        run_trial(apart)
        assert ended(Path(ours.paths.folder)) == ended(Path(apart.paths.folder))


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("last_epoch", [1, 3])
def test_without_a_checkpoint_after_every_epoch_a_killed_trial_ends_the_same(inputs, tmp_path, last_epoch):
    """It goes on from an older checkpoint, or anew, and the epochs that it repeats replace those it had written."""
    trial = head_trial(inputs, tmp_path, "dot", epochs=5)
    checkpoint = Path(trial.paths.folder) / "checkpoint.pt"

    def kill(epoch, metrics):
        assert checkpoint.exists() == (last_epoch == 3)
        if epoch == last_epoch:
            raise Killed

    if last_epoch == 3:  # a first run leaves the checkpoint of its first epoch, a second one no more

        def kill_at_once(epoch, metrics):
            raise Killed

        with pytest.raises(Killed):
            run_trial(trial, on_epoch=kill_at_once)
    with pytest.raises(Killed):
        run_trial(trial, on_epoch=kill, checkpoint_seconds=60)
    assert len(read_journal(Path(trial.paths.folder) / "journal.jsonl")) == last_epoch + 1
    run_trial(trial, checkpoint_seconds=60)
    whole = head_trial(inputs, tmp_path / "whole", "dot", epochs=5)
    run_trial(whole)
    assert ended(Path(trial.paths.folder)) == ended(Path(whole.paths.folder))
