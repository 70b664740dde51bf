"""What is installed from a wheel or an sdist is whole: jobs by name, spaces, published numbers, page, stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from job_runs import job_environment

ROOT = Path(__file__).parents[1]
OUTSIDE = {name: value for name, value in job_environment().items() if name != "PYTHONPATH"}


def tracked(*folders: str) -> set[str]:
    """Python files of the packages, as they must be in the wheel."""
    return {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the wheel and the sdist, built from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "mlruns")
    shutil.copytree(ROOT, source, ignore=left_out)
    code = (
        "import setuptools.build_meta as backend; "
        f"backend.build_sdist({str(folder)!r}); backend.build_wheel({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=source, env=OUTSIDE, check=True, capture_output=True)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.mark.slow
def test_the_wheel_holds_everything_that_runs(built):
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        names = set(wheel.namelist())
    assert tracked("ccim_ray", "jobs", "search_spaces") <= names
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ccim_ray/reports/page").iterdir()}
    stand_ins = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("ccim_ray/perception/stand_ins/*.safetensors")}
    assert len(page) >= 3
    assert len(stand_ins) >= 3
    assert page | stand_ins | {"ccim_ray/py.typed", "ccim_ray/reports/published.csv"} <= names
    assert not {name for name in names if name.startswith(("tests", "docs", "benchmarks"))}


@pytest.mark.slow
def test_the_sdist_holds_what_a_packager_needs(built):
    with tarfile.open(only(built, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert tracked("ccim_ray", "jobs", "search_spaces", "tests") <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= names


@pytest.mark.slow
def test_jobs_run_by_name_from_an_installed_wheel(built, tmp_path):
    """In a fresh environment, far from the checkout; what it depends on is taken from this one."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    site = only(environment, "lib/python*/site-packages")
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        wheel.extractall(site)
    # By a path and not by a .pth file of its own, which would be read for an editable install of this checkout.
    mine = Path(subprocess.__file__).parent / "site-packages", Path(pytest.__file__).parents[1]
    shown = os.pathsep.join(str(folder) for folder in mine if folder.is_dir())
    program = environment / "bin" / "python"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        variables = OUTSIDE | {"PYTHONPATH": f"{site}{os.pathsep}{shown}"}
        return subprocess.run(
            [program, *words], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )

    where = run("-c", "import ccim_ray, search_spaces; print(ccim_ray.__file__, search_spaces.__file__)")
    assert all(path.startswith(str(site)) for path in where.stdout.split()), where
    listed = run("-m", "ccim_ray")
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"}
    assert {line.split()[0] for line in listed.stdout.splitlines() if line.startswith("  ")} == jobs
    planned = run("-m", "ccim_ray", "sweep_dict_size", "--plan", "--preset", "smoke", "--storage", "runs")
    assert planned.returncode == 0, planned.stderr
    assert "8 trials of 1 CPU" in planned.stdout
    assert not (tmp_path / "runs").exists()


def test_a_job_runs_by_name_and_an_unknown_one_is_named(tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ccim_ray", *words]
        return subprocess.run(command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, check=False)

    listed = run().stdout
    assert "  sweep_dict_size         How does the size N" in listed
    assert "python -m ccim_ray JOB --help" in listed
    helped = run("sweep_dict_size", "--help")
    assert helped.returncode == 0
    assert "--sizes" in helped.stdout
    wrong = run("sweep")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: sweep: there is no such job; python -m ccim_ray lists them\n",
    )
