"""From a folder in each dataset's own format to the table of baselines: what a newcomer does first, job after job.

The folders are embedded worlds with planted defects, so it is known what each job has to find wrong. Everything is
parsed and run as on the command line, in this process: starting Ray takes longer than most of these jobs.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from job_runs import ROOT

from ccim_ray.datasets.registry import load_dataset

pytestmark = pytest.mark.slow

NEAR_DUPLICATE = "near-duplicate image across splits"
TRUNCATED = "truncated or damaged image"
IMAGE_FOLDER = {"caer_s": "CAER-S/", "emotic": "emotic/", "groupwalk": ""}
NOTE = "format unverified"

Job = Callable[..., str]


@pytest.fixture
def job(cluster: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Job:
    """Runs a job with its command line to a good end and returns what it printed."""
    for name in ("MLFLOW_TRACKING_URI", "CCIM_RAY_STORAGE", "CCIM_RAY_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)

    def run(name: str, *flags: object) -> str:
        spec = importlib.util.spec_from_file_location(f"job_{name}", ROOT / "jobs" / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, flags)])
        spec.loader.exec_module(module)
        assert module.main() == 0
        return capsys.readouterr().out

    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def named_defects(path: Path, like: str) -> dict[str, list[str]]:
    """Where each kind is; what a full decode finds names the picture with its folder, as no loader does."""
    named: dict[str, list[str]] = {}
    for row in rows_of(path):
        named.setdefault(row["kind"], []).append(row["where"].removeprefix(IMAGE_FOLDER[like]))
    return {kind: sorted(places) for kind, places in named.items()}


def path_after(words: str, printed: str) -> Path:
    (found,) = re.findall(rf"{re.escape(words)}(\S+)", printed)
    return Path(found.rstrip(":,"))


@pytest.mark.parametrize("like", ["caer_s", "emotic", "groupwalk"])
def test_from_a_folder_to_the_table_of_baselines(like: str, tmp_path: Path, job: Job) -> None:
    root, storage = tmp_path / "data", tmp_path / "runs"
    made = job("make_confounded_scenes", "--like", like, "--out", root, "--images", 300, "--defects", 0.01)
    planted = json.loads((root / "planted_defects.json").read_text())
    expected = {kind: sorted(entry["where"]) for kind, entry in planted["defects"].items()}
    assert {len(places) for places in expected.values()} == {3}
    for kind in expected:
        assert f"3 x {kind}" in made
    expected.pop(NEAR_DUPLICATE, None)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    data = ("--dataset", like, "--data-root", root, "--storage", storage)
    checked = job("check_dataset", *data)
    report = path_after("Report: ", checked)
    check = json.loads(report.read_text())
    assert {kind: defect["count"] for kind, defect in check["defects"].items()} == dict.fromkeys(expected, 3)
    assert named_defects(path_after("Every defect by name: ", checked), like) == expected
    assert_planted_copies_are_found(check, rows_of(report.with_name("copies.csv")), planted["copies"], like)

    bias = job("measure_context_bias", *data, "--scene-weights", "thin_resnet/scenes", "--permutations", 50)
    (csv_file,) = storage.glob("context_bias/*/context_bias.csv")
    assert rows_of(csv_file)
    (title,) = [line for line in bias.splitlines() if line.startswith("Context bias (Fig. 2): ")]
    assert (NOTE in title) == (like == "groupwalk")
    assert (json.loads(csv_file.with_suffix(".json").read_text())["note"] == NOTE) == (like == "groupwalk")

    training = (*data, "--stand-ins", "--trainable", "head", "--preset", "smoke")
    if like == "caer_s":
        training = (*training, "--detector", "none")  # whose weights no test can have
    extracted = job("extract_features", *training)
    assert named_defects(path_after("defects by name: ", extracted), like) == expected
    assert_groups_are_those_of(expected[TRUNCATED], extracted, root, like)

    trained = job("train", *training, "--epochs", 2)
    assert "Extracting" not in trained
    assert any(row["metric"].startswith("test_do/") for row in results_of(trained))

    compared = job(
        "compare_baselines",
        *training,
        "--pose-detector",
        "none",
        "--baselines",
        "caer_net",
        "emoticon",
        "--seeds",
        0,
        "--epochs",
        1,
    )
    measured = [row for row in results_of(compared) if row["n_seeds"] == "1"]
    found = {(row["baseline"].partition(" ")[0], row["setting"]) for row in measured}
    settings = ("vanilla", "W_h alone", "CCIM")
    assert found == {(baseline, setting) for baseline in ("caer_net", "emoticon") for setting in settings}

    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    outputs = (made, checked, bias, extracted, trained, compared)
    printed = dict(zip(("make", "check", "bias", "extract", "train", "compare"), outputs, strict=True))
    expected_note = dict.fromkeys(printed, like == "groupwalk")
    assert {name: NOTE in text for name, text in printed.items()} == expected_note
    tables = [path for path in storage.rglob("*") if path.suffix in (".md", ".tex") and "mlflow" not in str(path)]
    assert len(tables) > 4
    assert {NOTE in path.read_text() for path in tables} == {like == "groupwalk"}


def assert_planted_copies_are_found(
    check: dict,  # type: ignore[type-arg]
    copies: list[dict[str, str]],
    planted: dict[str, str],
    like: str,
) -> None:
    """Each planted pair is a group of its own, and there is no other.

    Nothing forbids two pictures that were drawn independently to look alike, but of 32 million such pairs three come
    as close as a near-duplicate has to; here there are 45 thousand.
    """
    groups: dict[str, set[str]] = {}
    for row in copies:
        groups.setdefault(row["group"], set()).add(row["image"].removeprefix(IMAGE_FOLDER[like]))
    assert sorted(map(sorted, groups.values())) == sorted(sorted(pair) for pair in planted.items())
    assert len(planted) == (3 if like == "caer_s" else 0)
    assert check["near_duplicates"]["groups_across_splits"] == len(planted)
    assert check["exact_copies"]["copies"] == 0


def assert_groups_are_those_of(damaged: list[str], printed: str, root: Path, like: str) -> None:
    """The subjects of images that were found damaged on decoding are counted by split and category."""
    lost: Counter[str] = Counter()
    for subject in load_dataset(like, root).subjects:
        if subject.image.removeprefix(IMAGE_FOLDER[like]) in damaged:
            lost.update(f"{subject.split}/{label}" for label in subject.labels)
    line = next(line for line in printed.splitlines() if "by group: " in line).partition("by group: ")[2]
    assert dict(re.findall(r"(\S+) (\d+)", line)) == {group: str(count) for group, count in lost.items()}
    assert f"{len(damaged)} unusable images" in printed


def results_of(printed: str) -> list[dict[str, str]]:
    return rows_of(path_after("Results in ", printed) / "results.csv")
