"""Whatever bytes an EMOTIC annotation file holds, loading it ends with a dataset or with one line.

SciPy crashes on some of them, so files are first loaded in a process that may die, and those that killed it again as
a user would.
"""

import struct
import subprocess
import sys
import zlib

import pytest

from ccim_ray.datasets import emotic_annotations
from ccim_ray.datasets.emotic import load_emotic
from ccim_ray.errors import RequestError

LOAD_DAMAGED = """
import json, random, sys
from pathlib import Path
from ccim_ray.datasets import emotic, emotic_annotations
from ccim_ray.errors import RequestError

emotic_annotations.limit_resources()
emotic.read_annotations = emotic_annotations.parse_annotations  # this process may die: none of its own is needed
root, whole, seeds = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), json.loads(sys.argv[3])
for seed in seeds:
    random.seed(seed)
    damaged = bytearray(whole)
    for _ in range(random.choice((1, 1, 2, 8))):
        damaged[random.randrange(len(damaged))] = random.randrange(256)
    (root / "Annotations/Annotations.mat").write_bytes(damaged)
    print(seed, flush=True, end=" ")
    try:
        print(len(emotic.load_emotic(root).subjects), "subjects", flush=True)
    except RequestError as error:
        print("refused:", ascii(str(error)), flush=True)
"""


def sound_files(emotic, compressed):
    box = [1, 1, 9, 9]
    return emotic.write(
        train=[emotic.picture("a.jpg", emotic.person("train", box, ["Peace"]))],
        val=[
            emotic.picture(
                "b.jpg",
                emotic.person("val", box, ["Fear"], ["Pain", "Fear"]),
                emotic.person("val", box, ["Doubt/Confusion"]),
            )
        ],
        test=[emotic.picture("c.jpg", emotic.person("test", box, ["Fear"], ["Pain"]), folder="framesdb/images")],
        compressed=compressed,
    )


def outcome_of_each(root, seeds):
    """What loading ended with for each seed, "crashed" included. Fails where it ended with another exception."""
    whole = root / "whole.mat"
    (root / "Annotations/Annotations.mat").rename(whole)
    outcomes = {}
    while left := [seed for seed in seeds if seed not in outcomes]:
        command = [sys.executable, "-c", LOAD_DAMAGED, str(root), str(whole), str(left)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode <= 0, f"{ended.stdout.splitlines()[-1]}: {ended.stderr}"
        for line in ended.stdout.splitlines():
            seed, _, outcome = line.partition(" ")
            outcomes[int(seed)] = outcome or "crashed"
            if not outcome:  # the file that did it is still there
                (root / "Annotations/Annotations.mat").rename(root / f"crash-{seed}.mat")
    return outcomes


def assert_a_dataset_or_one_line(emotic, compressed, seeds):
    root = sound_files(emotic, compressed)
    outcomes = outcome_of_each(root, seeds)
    path = root / "Annotations/Annotations.mat"
    assert outcomes.keys() == set(seeds)
    refused = [outcome for outcome in outcomes.values() if outcome.startswith("refused")]
    assert refused
    assert all(str(path) in line or str(root / "emotic") in line for line in refused)
    assert max(map(len, refused)) < 1000
    return path, sorted(root.glob("crash-*.mat"))


@pytest.mark.parametrize("compressed", [False, True])
def test_changed_bytes_give_a_dataset_or_one_line(emotic, compressed):
    path, crashes = assert_a_dataset_or_one_line(emotic, compressed, range(100))
    for crash in crashes:
        crash.rename(path)
        # What SciPy reads beyond its buffer differs from process to process: it need not crash again.
        with pytest.raises(RequestError, match=r"Annotations.mat: (damaged so that reading it crashed|not a readable)"):
            load_emotic(emotic.root)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_many_more_changed_bytes_give_a_dataset_or_one_line(emotic, compressed):
    assert_a_dataset_or_one_line(emotic, compressed, range(100, 1500))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_off_anywhere_is_refused(emotic, compressed):
    path = sound_files(emotic, compressed) / "Annotations/Annotations.mat"
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(RequestError, match=r"Annotations.mat: "):
            emotic_annotations.parse_annotations(path)


def mat_of_zeros(claimed, unfolded):
    """A matrix ``train`` that claims so many bytes of doubles, compressed with so many zeros behind it."""
    flags_and_size = struct.pack("<IIIIIIii", 6, 8, 6, 0, 5, 8, 1, claimed // 8)
    head = flags_and_size + struct.pack("<II8s", 1, 5, b"train") + struct.pack("<II", 9, claimed)
    packer = zlib.compressobj()
    packed = packer.compress(struct.pack("<II", 14, len(head) + claimed) + head) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)  # can stand any number of times
    packed += piece * (unfolded >> 24) + packer.flush()
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H2s", 0x0100, b"IM") + struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.parametrize("unfolded", [0, 3 << 30])
def test_an_element_of_gigabytes_is_refused(emotic, unfolded):
    path = sound_files(emotic, compressed=True) / "Annotations/Annotations.mat"
    path.write_bytes(mat_of_zeros(3 << 30, unfolded))
    assert path.stat().st_size < 4 << 20
    with pytest.raises(
        RequestError, match=r"Annotations.mat: not a readable MATLAB version 5 file \((MemoryError|error: Error -3)"
    ):
        load_emotic(emotic.root)


def test_a_file_that_takes_too_long_is_given_up(emotic, monkeypatch):
    root = sound_files(emotic, compressed=False)
    monkeypatch.setattr(emotic_annotations, "TIME_LIMIT_S", 0.01)
    with pytest.raises(RequestError, match=r"Annotations.mat: not read within 0.01 s"):
        load_emotic(root)


def test_a_reading_process_that_cannot_start_says_why(emotic, monkeypatch, tmp_path):
    root = sound_files(emotic, compressed=False)
    (tmp_path / "scipy.py").write_text("raise ImportError('no scipy here')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=r"Annotations.mat: reading it failed \(ImportError: no scipy here\)"):
        load_emotic(root)


def test_loading_works_from_a_script_on_stdin_in_any_folder(emotic, tmp_path_factory):
    root = sound_files(emotic, compressed=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "json.py").write_text("raise SystemExit('a file of the user')")
    script = (
        f"import sys; sys.path[:] = {[path for path in sys.path if path]!r}\n"
        "from pathlib import Path\n"
        "from ccim_ray.datasets.emotic import load_emotic\n"
        f"print(len(load_emotic(Path({str(root)!r})).subjects))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-"], input=script, capture_output=True, text=True, check=False, cwd=elsewhere
    )
    assert (ended.stdout, ended.stderr) == ("4\n", "")
