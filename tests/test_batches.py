"""Batches: a permutation of the train split for every epoch, shared out among processes, read ahead in order."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccim_ray.batches import Batches, on_device, one_ahead
from ccim_ray.errors import RequestError
from ccim_ray.prepared import SubjectIndex, TrialInputs, ViewRows

CPU = torch.device("cpu")


def make_inputs(subjects=11):
    rows = np.arange(2 * subjects, dtype=np.float32).reshape(subjects, 2)
    view = ViewRows((rows,), (None,) * subjects)
    ids = tuple(f"s{number}" for number in range(subjects))
    targets = np.eye(3, dtype=np.float32)[np.arange(subjects) % 3]
    index = SubjectIndex(ids, np.full(subjects, "train"), targets, ("A", "B", "C"), False)
    return TrialInputs(index, {"body": view}, None)


@given(subjects=st.integers(4, 40), size=st.integers(2, 50), world_size=st.integers(1, 2), epoch=st.integers(0, 3))
def test_processes_share_whole_batches_of_a_permutation(subjects, size, world_size, epoch):
    rows = np.arange(100, 100 + subjects)
    size = size // world_size * world_size
    of_ranks = [Batches(rows, size, 5, rank, world_size) for rank in range(world_size)]
    found = [[*of_rank.of_epoch(epoch)] for of_rank in of_ranks]
    assert {len(of_rank) for of_rank in of_ranks} == {len(batches) for batches in found}
    seen = np.concatenate([np.concatenate(batches) for batches in found])
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(rows)
    assert subjects - len(seen) < min(size, subjects) + world_size
    again = Batches(rows, size, 5, 0, world_size).of_epoch(epoch)
    assert all((first == second).all() for first, second in zip(found[0], again, strict=True))


def test_every_epoch_and_seed_has_its_own_order():
    rows = np.arange(64)
    orders = {tuple(np.concatenate([*Batches(rows, 16, seed).of_epoch(epoch)])) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_too_few_subjects_are_refused():
    with pytest.raises(RequestError, match="3 usable subjects, and batch norm needs two for each of 2 workers"):
        Batches(np.arange(3), 16, world_size=2)


def test_batches_hold_the_rows_that_were_asked_for():
    inputs = make_inputs()
    wanted = [np.array([3, 1]), np.array([10])]
    batches = [*on_device(inputs, wanted, CPU)]
    for rows, (views, targets) in zip(wanted, batches, strict=True):
        np.testing.assert_array_equal(views["body"], inputs.views["body"].shards[0][rows])
        np.testing.assert_array_equal(targets, inputs.index.targets[rows])


def test_the_next_item_is_made_while_one_is_used():
    second_made = threading.Event()

    def items():
        yield "first"
        second_made.set()
        yield "second"

    ahead = one_ahead(items())
    assert next(ahead) == "first"
    assert second_made.wait(timeout=20)
    assert [*ahead] == ["second"]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_reading_ahead_changes_nothing(count):
    assert [*one_ahead(iter(range(count)))] == [*range(count)]


def test_an_error_comes_at_its_item():
    def items():
        yield 1
        raise OSError("the disk does not answer")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk does not answer"):
        next(ahead)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    ahead = one_ahead(iter(range(10)))
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
