"""A storage in a bucket, on a real server that speaks S3: another machine goes on where one stopped."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import time

import pytest
from job_runs import ROOT, job_environment
from pyarrow.fs import FileSystem

from ccim_ray.errors import RequestError
from ccim_ray.object_store import ObjectStore
from ccim_ray.pipeline.cluster import require_one_machine
from ccim_ray.storage import Storage, write_json


@pytest.fixture
def machine(bucket_address, tmp_path):
    """Makes the storage of a machine of this name."""

    def make(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return Storage(tmp_path / name, ObjectStore(bucket_address, tmp_path / name))

    return make


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


def test_another_machine_finds_what_one_has_sent(machine):
    one = machine("one")
    write(one.features("f1") / "shard-0", "a")
    write(one.features("f1") / "deeper" / "shard-1", "b")
    write(one.trial("t1") / "checkpoint.pt", "epoch 3")
    write(one.trial("t1") / "journal.jsonl", "1\n2\n3\n")
    write_json(one.sweep("s1") / "ledger.json", {"a": 1})
    with one.kept_up_to_date():
        pass
    two = machine("two")
    assert (two.features("f1") / "shard-0").read_text() == "a"
    assert (two.features("f1") / "deeper" / "shard-1").read_text() == "b"
    assert contents(two.trial("t1")) == {"checkpoint.pt": "epoch 3", "journal.jsonl": "1\n2\n3\n"}
    assert contents(two.sweep("s1")) == contents(one.sweep("s1"))
    assert not two.features("f2").exists()
    assert not two.trial("t2").exists()


def test_pictures_and_files_being_written_stay_here(machine):
    one = machine("one")
    for path in ("worlds/w/a.png", "derived/frames/v/0.jpg", "derived/features/f/.shard.1-ab.tmp", "mlflow.db"):
        write(one.root / path, "x")
    with one.kept_up_to_date():
        pass
    two = machine("two")
    for folder in ("worlds", "derived", "mlflow.db"):
        two.bucket.fetch(folder)
    assert [path for path in two.root.rglob("*") if path.is_file() and path.name != ".object_store.json"] == []


def test_what_changed_on_one_side_replaces_the_other(machine):
    one = machine("one")
    write(one.trial("t") / "checkpoint.pt", "epoch 1")
    one.bucket.send()
    two = machine("two")
    write(two.trial("t") / "checkpoint.pt", "epoch 2 there")
    time.sleep(1.1)  # servers tell to the second when an object was written
    two.bucket.send()
    again = machine("one")
    assert contents(again.trial("t")) == {"checkpoint.pt": "epoch 2 there"}
    write(again.trial("t") / "checkpoint.pt", "epoch 3 here")
    later = machine("one")  # what was never sent is not lost to what lies in the bucket
    assert contents(later.trial("t")) == {"checkpoint.pt": "epoch 3 here"}
    time.sleep(1.1)
    later.bucket.send()
    assert contents(machine("two").trial("t")) == {"checkpoint.pt": "epoch 3 here"}


def test_several_machines_are_told_what_to_do_instead(machine, bucket_address):
    require_one_machine(machine("one"), 1)
    require_one_machine(Storage(machine("one").root), 5)
    with pytest.raises(RequestError, match=r"this cluster has 5; give a folder .* or run on one \(unset RAY_ADDRESS\)"):
        require_one_machine(machine("one"), 5)


def test_nothing_is_sent_twice(machine, bucket_address):
    one = machine("one")
    write(one.features("f") / "shard", "a")
    write(one.trial("t") / "journal.jsonl", "1\n")
    one.bucket.send()

    def written():
        bucket, prefix = FileSystem.from_uri(bucket_address)
        paths = [f"{prefix}/derived/features/f/shard", f"{prefix}/trials/t.tar"]
        return [info.mtime_ns for info in bucket.get_file_info(paths)]

    before = written()
    one.bucket.send()
    machine("one").bucket.send()
    assert written() == before
    write(one.trial("t") / "journal.jsonl", "1\n2\n")
    time.sleep(1.1)
    one.bucket.send()
    after = written()
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_an_archive_cannot_write_outside_its_trial(machine, bucket_address):
    bucket, prefix = FileSystem.from_uri(bucket_address)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("../../escaped")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    holes = tarfile.TarInfo("checkpoint.pt")
    holes.type = tarfile.GNUTYPE_SPARSE
    # A map of no piece and a size of eight gigabytes, which would all be written as zeros.
    header = bytearray(holes.tobuf(tarfile.GNU_FORMAT))
    header[386:482] = b"%011o\0%011o\0" % (2**33 - 1, 0) + bytes(72)
    header[482] = 0
    header[483:495] = b"%011o\0" % (2**33 - 1)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    damaged = {"evil": content.getvalue(), "torn": b"no archive at all" * 100}
    damaged |= {"packed": gzip.compress(content.getvalue()), "holes": bytes(header) + bytes(1024)}
    for name, data in damaged.items():
        with bucket.open_output_stream(f"{prefix}/trials/{name}.tar") as target:
            target.write(data)
    one = machine("one")
    with pytest.raises(RequestError, match=r"evil.tar holds '../../escaped', which no trial's folder has"):
        one.trial("evil")
    assert not (one.root.parent / "escaped").exists()
    with pytest.raises(RequestError, match=r"holes.tar holds 'checkpoint.pt', which no trial's folder has"):
        one.trial("holes")
    for name in ("torn", "packed"):
        with pytest.raises(RequestError, match=rf"{name}.tar is damaged"):
            one.trial(name)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("gs://bucket/x", "write s3://BUCKET/PREFIX"),
        ("s3://key:planted-secret@bucket/x", "keys come from the environment"),
    ],
)
def test_a_wrong_address_is_told_in_one_line_without_its_secret(wrong, told, tmp_path):
    with pytest.raises(RequestError, match=told) as raised:
        ObjectStore(wrong, tmp_path)
    assert "planted-secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bucket_that_is_not_there_is_told(bucket_address, tmp_path):
    other = bucket_address.replace(bucket_address.split("/")[2], "nobodys")
    with pytest.raises(RequestError, match="there is no such bucket"):
        ObjectStore(other, tmp_path)


def test_a_failed_job_is_told_of_rather_than_the_bucket(machine, monkeypatch):
    one = machine("one")
    write(one.trial("t") / "journal.jsonl", "1\n")
    with pytest.raises(ZeroDivisionError), one.kept_up_to_date():
        raise ZeroDivisionError
    assert contents(machine("two").trial("t")) == {"journal.jsonl": "1\n"}


@pytest.mark.slow
def test_a_sweep_goes_on_on_another_machine(bucket_address, tmp_path):
    command = [sys.executable, "jobs/sweep_dict_size.py", "--preset", "smoke", "--storage", bucket_address]

    def run(cache, *flags):
        environment = job_environment() | {
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            "CCIM_RAY_CACHE": str(tmp_path / cache),
        }
        ended = subprocess.run(
            [*command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "planted-secret" not in ended.stdout + ended.stderr
        return ended.stdout

    def table(text):
        return text[text.rindex("Does the size") : text.index("Results in")]

    first = run("one", "--seeds", "0")
    again = run("two", "--seeds", "0")
    assert "4 trials: 4 done" in again
    assert "Extracting" not in again
    assert table(again) == table(first)
    more = run("two", "--seeds", "0", "1")
    assert "4 done, 4 new" in more
