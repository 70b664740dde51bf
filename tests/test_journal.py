"""The journal survives kills, and says so when it is damaged."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccim_ray.errors import RequestError
from ccim_ray.journal import Journal, read_journal

ENDLESS_WRITER = """
import sys
from pathlib import Path
from ccim_ray.journal import Journal
journal = Journal(Path(sys.argv[1]))
for step in range(1_000_000):
    journal.append(step, {f"test/AP/{k}": step + k / 100 for k in range(40)})
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials" / "abc" / "journal.jsonl"


def test_lines_are_read_back_and_are_json(path):
    before = time.time()
    with Journal(path) as journal:
        journal.append(0, {"train/loss": 1.5, "test/AP/Doubt/Confusion": 0.25})
        journal.append(1, {"train/loss": 1.25})
    lines = read_journal(path)
    assert [line.step for line in lines] == [0, 1]
    assert lines[0].metrics == {"train/loss": 1.5, "test/AP/Doubt/Confusion": 0.25}
    assert before <= lines[0].time <= lines[1].time <= time.time()
    raw = [json.loads(text) for text in path.read_text().splitlines()]
    assert set(raw[0]) == {"step", "time", "metrics", "crc32"}
    assert read_journal(path, after_step=0) == lines[1:]


def test_a_journal_that_does_not_exist_has_no_lines(path):
    assert read_journal(path) == []


def test_a_diverged_loss_is_kept_and_the_file_stays_strict_json(path):
    with Journal(path) as journal:
        journal.append(0, {"a": math.nan, "b": math.inf, "c": -math.inf})
    metrics = read_journal(path)[0].metrics
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (math.inf, -math.inf)

    def refuse(constant):
        raise ValueError(constant)

    json.loads(path.read_text(), parse_constant=refuse)


@settings(deadline=None)  # a line waits for the disk
@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
def test_every_float_comes_back_bit_for_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("floats") / "journal.jsonl"
    with Journal(path) as journal:
        for step, value in enumerate(values):
            journal.append(step, {"x": value})
    assert [line.metrics["x"].hex() for line in read_journal(path)] == [value.hex() for value in values]


def test_half_a_line_at_the_end_is_ignored_and_gone_after_opening(path):
    with Journal(path) as journal:
        journal.append(0, {"train/loss": 1.0})
        journal.append(1, {"train/loss": 0.5})
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second, len(whole)):
        path.write_bytes(whole[:end])
        assert [line.step for line in read_journal(path)] == [0]
    with Journal(path) as journal:
        assert journal.last_step == 0
        journal.append(1, {"train/loss": 0.25})
    assert [line.metrics["train/loss"] for line in read_journal(path)] == [1.0, 0.25]


def test_a_killed_writer_leaves_a_readable_journal_that_goes_on(path):
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, str(path)])
    try:
        while len(read_journal(path)) < 20:
            assert writer.poll() is None
            time.sleep(0.01)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    steps = [line.step for line in read_journal(path)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 20
    with Journal(path) as journal:
        journal.append(len(steps), {"train/loss": 0.0})
    assert len(read_journal(path)) == len(steps) + 1


def test_rewind_drops_later_epochs_and_goes_on_from_there(path):
    with Journal(path) as journal:
        for step in range(5):
            journal.append(step, {"train/loss": float(step)})
        journal.rewind(2)
        assert journal.last_step == 2
        journal.append(3, {"train/loss": 33.0})
    assert [(line.step, line.metrics["train/loss"]) for line in read_journal(path)] == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
        (3, 33.0),
    ]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_rewind_before_the_first_epoch_empties_the_journal(path):
    with Journal(path) as journal:
        journal.append(0, {"train/loss": 1.0})
        journal.rewind(-1)
        assert journal.last_step is None
        journal.append(0, {"train/loss": 2.0})
    assert [line.metrics for line in read_journal(path)] == [{"train/loss": 2.0}]


def test_a_step_cannot_be_written_twice(path):
    with Journal(path) as journal:
        journal.append(3, {"train/loss": 1.0})
        with pytest.raises(ValueError, match="rewind first"):
            journal.append(3, {"train/loss": 1.0})


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00\x00\x00\x00\n",
        b'{"step": 1, "time": 0.0}\n',
        b'{"step": 1, "time": 0.0, "metrics": {"x": "much"}}\n',
        b'{"step": 0, "time": 0.0, "metrics": {"x": 1}}\n',
        b"[]\n",
    ],
)
def test_other_damage_is_named_with_its_line(path, damage):
    with Journal(path) as journal:
        journal.append(0, {"x": 1.0})
    with path.open("ab") as stream:
        stream.write(damage)
    with pytest.raises(RequestError, match=r"journal\.jsonl line 2 .*remove the folder"):
        read_journal(path)
    with pytest.raises(RequestError, match="line 2"):
        Journal(path)


def test_a_folder_that_cannot_be_made_is_a_request_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="--storage"):
        Journal(Path(tmp_path / "file" / "journal.jsonl"))


def test_a_disk_that_takes_half_a_line_is_one_error_and_leaves_whole_lines(path, full_disk):
    metrics = {f"metric-{number}": 0.125 for number in range(64)}  # about 1.3 KB a line: the fourth does not fit
    with Journal(path) as journal:
        with full_disk(), pytest.raises(RequestError, match=f"cannot write {path}: .*make room") as failure:
            for step in range(8):
                journal.append(step, metrics)
        assert "\n" not in str(failure.value)
        steps = [line.step for line in read_journal(path)]
        assert steps == list(range(len(steps)))
        assert steps
        assert path.read_bytes().endswith(b"\n")
        journal.append(len(steps), metrics)
    assert [line.step for line in read_journal(path)] == [*steps, len(steps)]
