"""The example of docs/own_model.md: its text is its files, it installs with pip, and its commands run."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from job_runs import ROOT, Ended, job_environment

from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.registry import load_dataset
from ccim_ray.datasets.subject import COUNTERFACTUAL

EXAMPLE = ROOT / "docs" / "examples" / "my_models"
TEXT = (ROOT / "docs" / "own_model.md").read_text()
COMMANDS = re.findall(r"^(?:python|pip|\w+=DIR python) .*$", TEXT, flags=re.M)
EXTRACTED = {
    "head": "Extracting face (thin_resnet/bodies), context (thin_resnet/scenes), masked",
    "all": "Extracting face (thin_resnet pictures), context (thin_resnet pictures), masked",
}
SMALL = ("--preset", "smoke", "--images", "300", "--epochs", "1", "--seeds", "0")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that pip installed the example into, to be put on PYTHONPATH."""
    source, target = tmp_path_factory.mktemp("source") / "my_models", tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, source)  # setuptools builds inside of it
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small embedded world, told of as my_dataset wants it."""
    root = tmp_path_factory.mktemp("people")
    write_world(WorldSettings(images=300, image_size=64), root)
    with (root / "people.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "x1", "y1", "x2", "y2", "label", "split"))
        for subject in load_dataset("confounded_scenes", root).subjects:
            if subject.split != COUNTERFACTUAL:  # of the embedded world alone
                rows.writerow((subject.image, *subject.body_box, *subject.labels, subject.split))
    return root


def run(command: str, installed: Path, people: Path, *flags: str) -> Ended:
    """Run a command of the text as it stands there, but for DIR and with more flags."""
    setting, _, program = command.replace("DIR", str(people)).partition("python ")
    chosen = dict([setting.strip().split("=")] if setting else [])
    words = shlex.split(program)
    path = os.pathsep.join([str(installed), str(ROOT)])
    environment = job_environment() | chosen | {"PYTHONPATH": path}
    ended = subprocess.run(
        [sys.executable, *words, *flags], capture_output=True, text=True, timeout=280, cwd=ROOT, env=environment
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def results(storage: Path) -> list[dict[str, str]]:
    (path,) = storage.glob("sweeps/*/results.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def the_command(*words: str) -> str:
    """The one command of the text with these words, the shortest where another adds flags."""
    found = sorted((c for c in COMMANDS if all(word in c for word in words)), key=len)
    assert found, words
    return found[0]


def test_every_command_of_the_text_is_tried_here() -> None:
    tried = [("pip install",), ("pytest",), ("compare_baselines",), ("train.py",), ("train.py", "all"), ("sweep",)]
    assert sorted(COMMANDS) == sorted(the_command(*words) for words in tried)
    assert shlex.split(the_command("pip install"))[-1] == str(EXAMPLE.relative_to(ROOT))


@pytest.mark.parametrize("name", ["pyproject.toml", "my_models/model.py", "my_models/dataset.py", "test_my_models.py"])
def test_the_text_shows_the_files(name: str) -> None:
    (shown,) = re.findall(rf"<!-- file: {re.escape(name)} -->\n```\w+\n(.*?)```\n", TEXT, flags=re.S)
    assert shown == (EXAMPLE / name).read_text()


def test_the_files_that_the_text_names_are_there() -> None:
    for name in re.findall(r"`(ccim_ray/\S+\.py)`", TEXT):
        assert (ROOT / name).is_file(), name


@pytest.mark.slow
def test_the_examples_own_tests_pass_and_can_fail(installed: Path, people: Path, tmp_path: Path) -> None:
    command = the_command("pytest")
    ended = run(command, installed, people, "-p", "no:cacheprovider")
    assert ended.status == 0, ended.out + ended.err
    assert "2 passed" in ended.out
    header, first, *others = (people / "people.csv").read_text().splitlines()
    image = first.split(",")[0]
    (tmp_path / image).parent.mkdir(parents=True)
    shutil.copy(people / image, tmp_path / image)
    (tmp_path / "people.csv").write_text(f"{header}\n{image},0,0,9,9,Bored,train\n")
    ended = run(command, installed, tmp_path, "-p", "no:cacheprovider")
    assert ended.status == 1
    assert "my_dataset: 1 x unknown label: 'Bored' of" in ended.out


def test_a_mistake_is_one_line_and_status_2(installed: Path, people: Path, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("image,label\n")
    storage = str(tmp_path / "runs")
    ended = run(the_command("train.py"), installed, tmp_path, "--storage", storage, "--plan")
    assert ended.status == 2, ended.out + ended.err
    (line,) = ended.err.splitlines()
    assert line == (
        f"error: {tmp_path}/people.csv: header 'image,label' found, 'image,x1,y1,x2,y2,label,split' expected"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("words", "mode"), [(("train.py",), "head"), (("train.py", "all"), "all")])
def test_my_model_trains_on_my_dataset(
    words: tuple[str, ...], mode: str, installed: Path, people: Path, tmp_path: Path
) -> None:
    ended = run(the_command(*words), installed, people, *SMALL, "--storage", str(tmp_path))
    assert ended.status == 0, ended.out + ended.err
    assert EXTRACTED[mode] in ended.out
    scores = {row["metric"]: row for row in results(tmp_path) if row["n_seeds"] == "1"}
    assert list(scores) == [f"{split}/accuracy" for split in ("test_id", "test_do", "test_anti")]
    for row in scores.values():
        assert (row["dataset"], row["baseline"]) == ("my_dataset", "my_model")
        assert 0 <= float(row["mean"]) <= 1


@pytest.mark.slow
def test_my_model_is_compared_with_emot_net(installed: Path, people: Path, tmp_path: Path) -> None:
    ended = run(the_command("compare_baselines"), installed, people, *SMALL, "--storage", str(tmp_path))
    assert ended.status == 0, ended.out + ended.err
    rows = {(row["baseline"], row["setting"]) for row in results(tmp_path) if row["n_seeds"] == "1"}
    settings = ("vanilla", "W_h alone", "CCIM")
    assert rows == {(baseline, setting) for baseline in ("emot_net", "my_model") for setting in settings}


@pytest.mark.slow
def test_my_model_over_dictionary_sizes(installed: Path, people: Path, tmp_path: Path) -> None:
    ended = run(the_command("sweep"), installed, people, *SMALL, "--sizes", "8", "--storage", str(tmp_path))
    assert ended.status == 0, ended.out + ended.err
    rows = {(row["baseline"], row["setting"]) for row in results(tmp_path) if row["n_seeds"] == "1"}
    assert rows == {("my_model", setting) for setting in ("vanilla", "W_h alone", "CCIM N=8")}
