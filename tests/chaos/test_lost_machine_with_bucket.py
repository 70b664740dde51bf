"""A storage in a bucket, and its machine lost with all that it holds: another goes on from what was sent."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest
import torch
from chaos_runs import TABLE, ended, run, start, trials_of, wait_for
from job_runs import TINY
from pyarrow.fs import FileSelector, FileSystem

from ccim_ray.journal import JournalLine, read_journal
from ccim_ray.object_store import SEND_SECONDS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SWEEP = (*TINY[:-1], "400", "--sizes", "8", "--seeds", "0")
ONE_BY_ONE = ("--max-concurrent", "1")
"""With so many epochs, training then goes on for long after the first round of sending."""
SENDING = 15.0
"""Seconds that a round may take where much else is done."""


def sent_epochs(address: str) -> dict[str, int]:
    """Of each trial in the bucket: its epochs that another machine need not train again."""
    bucket, prefix = FileSystem.from_uri(address)
    found = {}
    for info in bucket.get_file_info(FileSelector(f"{prefix}/trials", allow_not_found=True)):
        with bucket.open_input_stream(info.path) as source, tarfile.open(fileobj=io.BytesIO(source.read())) as archive:
            files = {member.name: archive.extractfile(member).read() for member in archive}
            if "result.json" in files:
                found[Path(info.path).stem] = json.loads(files["result.json"])["epochs"]
            elif "checkpoint.pt" in files:
                progress = torch.load(io.BytesIO(files["checkpoint.pt"]), weights_only=True)["progress"]
                found[Path(info.path).stem] = progress["epoch"]
    return found


def journals_of(storage: Path) -> dict[str, list[JournalLine]]:
    return {folder.name: read_journal(folder / "journal.jsonl") for folder in (storage / "trials").iterdir()}


def test_a_machine_is_lost_and_another_goes_on_from_the_bucket(bucket_address: str, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    end = run("sweep_dict_size", *SWEEP, "--storage", str(undisturbed), folder=tmp_path / "log")
    assert end.status == 0, end
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    flags = (*SWEEP, "--storage", bucket_address)

    log = tmp_path / "log of one"
    job = start("sweep_dict_size", *flags, *ONE_BY_ONE, folder=log, CCIM_RAY_CACHE=str(tmp_path / "one"), **keys)
    wait_for(lambda: sent_epochs(bucket_address), process=job)
    killed = time.time()
    os.killpg(job.pid, signal.SIGKILL)
    assert ended(job, log).status == -signal.SIGKILL
    sent = sent_epochs(bucket_address)
    (lost,) = (tmp_path / "one").iterdir()
    before = journals_of(lost)
    for signature, lines in before.items():
        at_risk = [line for line in lines if line.time < killed][sent.get(signature, 0) :]
        assert all(killed - line.time < SEND_SECONDS + SENDING for line in at_risk), (signature, sent, at_risk[0])
    (tmp_path / "one").rename(tmp_path / "gone")

    log = tmp_path / "log of two"
    end = run("sweep_dict_size", *flags, folder=log, CCIM_RAY_CACHE=str(tmp_path / "two"), **keys)
    assert (end.status, end.err) == (0, ""), end
    assert "Extracting" not in end.out
    (storage,) = (tmp_path / "two").iterdir()
    assert trials_of(storage) == trials_of(undisturbed)
    after = journals_of(storage)
    for signature, epochs in sent.items():  # with the same times: not trained again
        assert after[signature][:epochs] == before[signature][:epochs]
    TABLE.add(
        "a machine lost whose storage is in a bucket, gone on with on another with empty folders",
        1,
        f"at most the {SEND_SECONDS:.0f} s since what is new was sent",
        "nothing extracted again; equal to the bit",
    )
