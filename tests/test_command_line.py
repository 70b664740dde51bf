"""A mistake on the command line is exit status 2 and one line on stderr; help and plans are quick and harmless."""

import subprocess
import sys
from pathlib import Path

import pytest
from job_runs import job_command, job_environment, run_job

from ccim_ray.command_line import CommonFlags
from ccim_ray.datasets.dataset import LoadOptions
from ccim_ray.errors import RequestError

HEAVY = {"torch", "ray", "mlflow", "sklearn", "pandas", "matplotlib"}
ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "ccim_ray.command_line" in path.read_text())


def refused(*flags, job="sweep_dict_size"):
    """The line with which a job refuses its flags."""
    ended = run_job(job, *flags)
    assert ended.status == 2, ended
    assert "Traceback" not in ended.out + ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    assert not line.startswith("error: error")
    return line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--nonsense", "3"), ("--nonsense",)),
        (("--batchsize", "3"), ("--batchsize",)),
        (("extra",), ("extra",)),
        (("--epochs", "many"), ("--epochs", "many")),
        (("--epochs", "2.5"), ("--epochs", "2.5")),
        (("--epochs", "0"), ("epochs", "0", "1")),
        (("--epochs",), ("--epochs",)),
        (("--bias", "2"), ("--bias", "2", "1")),
        (("--bias", "nan"), ("--bias", "nan")),
        (("--images", "10"), ("--images", "10", "50")),
        (("--like", "imagenet"), ("--like", "imagenet", "caer_s")),
        (("--dataset", "imagenet"), ("--dataset imagenet", "confounded_scenes, emotic, caer_s")),
        (("--preset", "huge"), ("--preset huge", "smoke, quick, paper")),
        (("--detector", "yolo"), ("--detector yolo", "fasterrcnn_resnet50_fpn", "none")),
        (("--detector", "fasterrcnn_resnet50_fpn"), ("--detector", "confounded_scenes", "leave the flag out")),
        (("--baseline", "alexnet"), ("alexnet", "emot_net")),
        (("--trainable", "some"), ("trainable", "some", "head", "all")),
        (("--workers-per-trial", "2"), ("--workers-per-trial", "--trainable all")),
        (("--workers-per-trial", "0", "--trainable", "all"), ("workers", "0")),
        (("--batch-size", "1"), ("--batch-size", "1", "2")),
        (("--sizes", "0"), ("size", "0")),
        (("--seeds", "-1"), ("seed", "-1")),
        (("--max-concurrent", "0"), ("max-concurrent", "0")),
        (("--gpus-per-worker", "-1"), ("gpus-per-worker", "-1")),
        (("--dataset", "emotic"), ("--dataset emotic", "--data-root DIR")),
        (("--dataset", "groupwalk"), ("--dataset groupwalk", "--data-root DIR")),
        (("--frame-step", "2"), ("--frame-step", "confounded_scenes")),
        (("--dataset", "emotic", "--data-root", ".", "--frame-step", "2"), ("--frame-step", "emotic")),
        (("--dataset", "groupwalk", "--data-root", ".", "--frame-step", "0"), ("--frame-step 0", "whole number")),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path, flags, words):
    line = refused("--plan", "--storage", str(tmp_path / "runs"), *flags)
    for word in words:
        assert word in line, line
    assert not (tmp_path / "runs").exists()


def test_a_missing_folder_of_data_is_named(tmp_path):
    line = refused("--plan", "--dataset", "caer_s", "--data-root", str(tmp_path / "none"), "--storage", str(tmp_path))
    assert f"--data-root: {tmp_path / 'none'}" in line


@pytest.mark.parametrize("job", ["sweep_dict_size", "train", "extract_features", "build_dictionary"])
@pytest.mark.parametrize("flags", [("--split-file", "mine.csv"), ("--keep-overlap",)])
def test_an_option_that_the_dataset_does_not_have_is_refused(tmp_path, job, flags):
    line = refused("--plan", "--storage", str(tmp_path / "runs"), *flags, job=job)
    assert line.startswith(f"error: {flags[0]}: ")
    assert line.endswith("leave the flag out")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": "groupwalk", "split_file": Path("mine.csv")}, "--split-file: the split of groupwalk"),
        ({"dataset": "caer_s", "keep_overlap": True}, "--keep-overlap: caer_s has no overlap"),
        ({"dataset": "groupwalk", "keep_overlap": True}, "--keep-overlap: groupwalk has no overlap"),
    ],
)
def test_options_are_refused_by_dataset(flags, message):
    with pytest.raises(RequestError, match=message):
        CommonFlags(**flags).load_options()


def test_a_split_file_that_does_not_exist_is_named(tmp_path, small_world):
    flags = ("--plan", "--dataset", "caer_s", "--data-root", str(small_world), "--storage", str(tmp_path))
    assert f"--split-file {ROOT / 'none.csv'}: no such file" in refused(*flags, "--split-file", "none.csv")


def test_the_options_of_reading_a_dataset_are_those_of_the_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CommonFlags(dataset="groupwalk").load_options() == LoadOptions()
    assert CommonFlags(dataset="emotic", keep_overlap=True).load_options() == LoadOptions(drop_overlap=False)
    chosen = CommonFlags(dataset="caer_s", split_file=Path("mine.csv")).load_options()
    assert chosen == LoadOptions(split_file=tmp_path / "mine.csv", detector="fasterrcnn_resnet50_fpn")
    assert CommonFlags(dataset="caer_s", detector="none").load_options() == LoadOptions()


@pytest.mark.parametrize("below", ["", "folder"])
def test_an_unwritable_storage_is_named(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    location = tmp_path / "file" / below
    line = refused("--preset", "smoke", "--storage", str(location))
    assert f"--storage {location} cannot be written" in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--deconfounder", "magic"), ("deconfounder", "magic", "none")),
        (("--attention", "self"), ("attention", "self", "additive")),
        (("--dictionary-size", "0"), ("size", "0")),
    ],
)
def test_flags_of_one_trial_are_checked_alike(tmp_path, flags, words):
    line = refused("--plan", "--storage", str(tmp_path / "runs"), *flags, job="train")
    for word in words:
        assert word in line, line


def test_flags_of_the_world_are_checked_alike(tmp_path):
    assert "--out" in refused(job="make_confounded_scenes")
    line = refused("--out", str(tmp_path / "world"), "--ambiguity", "-0.5", job="make_confounded_scenes")
    assert "--ambiguity" in line
    assert not (tmp_path / "world").exists()


@pytest.mark.parametrize("job", JOBS)
def test_help_explains_and_imports_nothing_heavy(job):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['jobs/{job}.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path('jobs/{job}.py', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    status = end.code\n"
        f"heavy = sorted({HEAVY!r} & set(sys.modules))\n"
        "print(heavy, status, file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=job_environment(),
    )
    assert "--help" in ended.stdout
    assert ended.stderr.split() == ["[]", "0"]


def test_help_names_every_flag_of_the_contract():
    shared = "dataset data-root split-file keep-overlap storage tracking-uri preset plan bias ambiguity"
    training = "baseline trainable seeds epochs batch-size workers-per-trial gpus-per-worker max-concurrent"
    of_jobs = {
        "sweep_dict_size": "sizes",
        "train": "attention dictionary-size deconfounder",
        "compare_deconfounders": "dictionary-size baselines",
    }
    for job, own in of_jobs.items():
        text = run_job(job, "--help").out
        for flag in f"{shared} {training if job != 'compare_deconfounders' else ''} {own}".split():
            assert f"--{flag} " in text, flag
    text = run_job("make_confounded_scenes", "--help").out
    for flag in ("like", "out", "bias", "images", "seed"):
        assert f"--{flag} " in text, flag


@pytest.mark.parametrize("like", ["caer_s", "groupwalk"])
def test_a_plan_is_printed_and_nothing_is_written(tmp_path, like):
    flags = ("--plan", "--preset", "smoke", "--like", like, "--storage", str(tmp_path / "runs"))
    ended = run_job("sweep_dict_size", *flags)
    assert (ended.status, ended.err) == (0, "")
    for stage in ("render", "extract", "cluster", "train"):
        assert stage in ended.out
    assert list(tmp_path.iterdir()) == []


def test_the_storage_may_be_named_by_the_environment(tmp_path):
    ended = subprocess.run(
        job_command("sweep_dict_size", "--plan", "--preset", "smoke"),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=job_environment() | {"CCIM_RAY_STORAGE": str(tmp_path / "elsewhere"), "COLUMNS": "200"},
    )
    assert str(tmp_path / "elsewhere") in ended.stdout
    assert list(tmp_path.iterdir()) == []
