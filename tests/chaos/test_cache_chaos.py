"""Caches deleted and damaged, two sweeps at once, a disk that runs full while trials are trained."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from chaos_runs import (
    SEED,
    TABLE,
    Fault,
    assert_equal,
    assert_logged_once,
    derived_of,
    ended,
    run,
    start,
    trials_of,
    wait_for,
)
from job_runs import TINY

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SWEEP = (*TINY, "--sizes", "8")
SHARD_SUBJECTS = 128


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> Path:
    """A storage as the undisturbed sweep left it, to be damaged."""
    storage = tmp_path / "runs"
    shutil.copytree(undisturbed, storage)
    return storage


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_exactly_the_shards_that_were_deleted_are_extracted_again(
    undisturbed: Path, copied: Path, tmp_path: Path, share: float
) -> None:
    generator = random.Random(SEED)
    shards = sorted(copied.glob("derived/features/*/shard-*"))
    deleted = generator.sample(shards, max(1, round(share * len(shards))))
    for path in deleted:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in shards if path.exists()}
    end = run("extract_features", *TINY, "--storage", str(copied), folder=tmp_path / "log")
    assert (end.status, end.err) == (0, ""), end
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert derived_of(copied) == derived_of(undisturbed)
    numbers = {int(path.stem.partition("-")[2]) for path in deleted}
    subjects = int(re.search(r"extract: (\d+) subjects in", end.out)[1])
    total = max(int(path.stem.partition("-")[2]) for path in shards)
    assert (len(numbers) - 1) * SHARD_SUBJECTS < subjects <= len(numbers) * SHARD_SUBJECTS, (numbers, total)
    TABLE.add(
        f"{share:.0%} of the feature files deleted at random (seed {SEED})",
        1,
        f"{len(deleted)} of {len(shards)} files",
        "these made again, the others not touched; equal to the bit",
    )


def test_what_is_damaged_is_made_again_with_a_word(undisturbed: Path, copied: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted((copied / "trials").iterdir())
    for folder in (first, second):
        (folder / "result.json").unlink()
    (first / "checkpoint.pt").write_bytes(b"damaged")
    (second / "checkpoint.pt").write_bytes(b"")
    damaged = [
        next(copied.glob("derived/features/*/shard-*")),
        next(copied.glob("derived/dictionaries/*.safetensors")),
        next(copied.glob("derived/subjects/*.parquet")),
    ]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    end = run("sweep_dict_size", *SWEEP, "--storage", str(copied), folder=tmp_path / "log")
    assert (end.status, end.err) == (0, ""), end
    for path in damaged[:2]:
        assert re.search(f"made again: .*{path.name}", end.out), end.out
    assert end.out.count("checkpoint.pt is damaged") == end.out.count("it is trained anew") == 2
    assert_equal(copied, undisturbed)
    logged = assert_logged_once(f"sqlite:///{copied}/mlflow.db", copied)
    result = f"made again with a word; equal to the bit; {logged}"
    TABLE.add("a shard, a dictionary and two checkpoints damaged", 1, "these", result)


def test_two_sweeps_at_once_do_no_work_twice(undisturbed: Path, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    logs = [tmp_path / "one", tmp_path / "other"]
    made = r"/(shard-[^/]*|dictionaries/[^/]*|result\.json)$"
    counting = Fault("replace", made, 0)  # strikes never
    jobs = [start("sweep_dict_size", *SWEEP, "--storage", str(storage), folder=log, fault=counting) for log in logs]
    for job, log in zip(jobs, logs, strict=True):
        end = ended(job, log)
        assert (end.status, end.err) == (0, ""), end
        assert "Trial _" not in end.out  # Tune's own words of a trial that the other job has trained
    assert_equal(storage, undisturbed)
    assert not list(storage.rglob("*.tmp"))
    logged = assert_logged_once(f"sqlite:///{storage}/mlflow.db", storage, at_once=len(jobs))
    events = [int((log / "events").read_text()) for log in logs if (log / "events").exists()]
    assert sum(events) == len(derived_of(undisturbed)) + len(trials_of(undisturbed))
    TABLE.add(
        "two of the same sweep at once on one storage", 1, "nothing", f"nothing made twice; equal to the bit; {logged}"
    )


def test_a_disk_that_runs_full_while_training_is_told_in_a_line(
    undisturbed: Path, tmp_path: Path, small_disk: Path
) -> None:
    storage, log = small_disk / "runs", tmp_path / "log"
    flags = (*SWEEP, "--storage", str(storage))
    job = start("sweep_dict_size", *flags, folder=log)
    wait_for(lambda: any(storage.glob("trials/*/checkpoint.pt")), process=job)
    ballast = small_disk / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4k"], capture_output=True, check=False)
    end = ended(job, log)
    assert end.status in (1, 2), end
    assert "Traceback" not in end.out + end.err, end
    assert "No space left" in end.out + end.err
    assert len(end.err.splitlines()) <= 1
    ballast.unlink()
    again = run("sweep_dict_size", *flags, folder=log)
    assert (again.status, again.err) == (0, ""), again
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(f"sqlite:///{storage}/mlflow.db", storage)
    result = f"one line; again, with room: equal to the bit; {logged}"
    TABLE.add("the disk full while trials are trained", 1, "at most one epoch a trial", result)
