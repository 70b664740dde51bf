"""What is installed from a wheel or an sdist is whole: jobs by name, spaces, published numbers, page, stand-ins."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from job_runs import job_environment

from ccim_ray import layout
from ccim_ray.command_line import typed_command

ROOT = Path(__file__).parents[1]
OUTSIDE = {name: value for name, value in job_environment().items() if name != "PYTHONPATH"}


def tracked(*folders: str) -> set[str]:
    """Python files of the packages, as they must be in the wheel."""
    return {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The checkout, copied: building leaves files behind."""
    source = tmp_path_factory.mktemp("copied") / "source"
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "mlruns")
    shutil.copytree(ROOT, source, ignore=left_out)
    return source


@pytest.fixture(scope="module")
def built(copied, tmp_path_factory):
    """Folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("built")
    code = (
        "import setuptools.build_meta as backend; "
        f"backend.build_sdist({str(folder)!r}); backend.build_wheel({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=copied, env=OUTSIDE, check=True, capture_output=True)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.mark.slow
def test_the_wheel_holds_everything_that_runs(built):
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        names = set(wheel.namelist())
    assert tracked("ccim_ray") <= names
    assert {f"ccim_ray/shipped/{name}" for name in tracked("jobs", "search_spaces")} <= names
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ccim_ray/reports/page").iterdir()}
    stand_ins = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("ccim_ray/perception/stand_ins/*.safetensors")}
    assert len(page) >= 3
    assert len(stand_ins) >= 3
    assert page | stand_ins | {"ccim_ray/py.typed", "ccim_ray/reports/published.csv"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ccim_ray"}


@pytest.mark.slow
def test_the_sdist_holds_what_a_packager_needs(built):
    with tarfile.open(only(built, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert tracked("ccim_ray", "jobs", "search_spaces", "tests") <= names
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= names


@dataclass(frozen=True)
class Environment:
    """A fresh environment that sees the packages of this one, but no ccim_ray of it."""

    folder: Path

    @property
    def site(self) -> Path:
        return only(self.folder, "lib/python*/site-packages")

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Its Python, far from the checkout."""
        command = [self.folder / "bin" / "python", *map(str, words)]
        return subprocess.run(
            command, cwd=self.folder.parent, env=OUTSIDE, capture_output=True, text=True, check=False, timeout=280
        )

    def install(self, *words: object) -> None:
        ended = self.run("-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", *words)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def plans(self, *words: object) -> None:
        """Whether a sweep's plan, for which the job finds its space, works."""
        planned = self.run(*words, "--plan", "--preset", "smoke", "--storage", self.folder / "runs")
        assert planned.returncode == 0, planned.stderr
        assert "8 trials of 1 CPU" in planned.stdout
        assert not (self.folder / "runs").exists()


def fresh_environment(folder: Path) -> Environment:
    """With a link to every installed package but this one, of which an editable install has a finder there too."""
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    made = Environment(folder / "venv")
    made.run("-m", "pip", "uninstall", "--yes", "setuptools")  # Python 3.11 brings one too old to build with
    visible = folder / "visible"
    visible.mkdir()
    shown = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    for path in (path for entry in shown for path in entry.iterdir()):
        own = (made.site / path.name).exists() or "ccim_ray" in path.name or path.suffix in (".pth", ".egg-link")
        if not own and not (visible / path.name).is_symlink():
            (visible / path.name).symlink_to(path)
    (made.site / "visible.pth").write_text(f"{visible}\n")
    assert "No module named 'ccim_ray'" in made.run("-c", "import ccim_ray").stderr
    return made


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def installed(request, built, tmp_path_factory):
    made = fresh_environment(tmp_path_factory.mktemp("installed"))
    made.install(only(built, request.param))
    return made


UNSATISFIED = """
from importlib.metadata import distribution
from packaging.requirements import Requirement

def unsatisfied(name, extra):
    for requirement in map(Requirement, distribution(name).requires):
        here = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if not here or requirement.marker is None and extra:
            continue
        version = distribution(requirement.name).version
        print("checked", requirement.name)
        if not requirement.specifier.contains(version, prereleases=True):
            print("unsatisfied", requirement, version)
        for wanted in requirement.extras:
            unsatisfied(requirement.name, wanted)

unsatisfied("ccim_ray", "")
"""


@pytest.mark.slow
def test_what_it_requires_is_there(installed):
    """As ``pip check`` says it, of this distribution alone."""
    checked = installed.run("-c", UNSATISFIED)
    assert checked.returncode == 0, checked.stderr
    assert {"checked torch", "checked ray", "checked mlflow", "checked tensorboardX"} <= set(
        checked.stdout.splitlines()
    )
    assert "unsatisfied" not in checked.stdout


@pytest.mark.slow
def test_only_the_package_is_installed(installed):
    code = "from importlib.metadata import files; print(*{file.parts[0] for file in files('ccim_ray')})"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert set(installed.run("-c", code).stdout.split()) == {"ccim_ray", f"ccim_ray-{version}.dist-info"}


@pytest.mark.slow
def test_jobs_run_by_name_where_it_is_installed(installed):
    where = installed.run("-c", "import ccim_ray; print(ccim_ray.__file__)")
    assert where.stdout.startswith(str(installed.site)), where
    listed = installed.run("-m", "ccim_ray")
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"}
    assert {line.split()[0] for line in listed.stdout.splitlines() if line.startswith("  ")} == jobs
    helped = installed.run("-m", "ccim_ray", "sweep_dict_size", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "--sizes" in helped.stdout
    installed.plans("-m", "ccim_ray", "sweep_dict_size")


@pytest.mark.slow
def test_published_numbers_page_and_stand_ins_are_installed(installed):
    code = (
        "from ccim_ray.reports.published import published_scores; import ccim_ray, pathlib; "
        "assert published_scores('emotic', 'emot_net', with_ccim=True); "
        "print(*(path.name for path in pathlib.Path(ccim_ray.__file__).parent.rglob('*') if path.is_file()))"
    )
    found = installed.run("-c", code)
    assert found.returncode == 0, found.stderr
    data = [*ROOT.glob("ccim_ray/reports/page/*"), *ROOT.glob("ccim_ray/perception/stand_ins/*.safetensors")]
    assert {path.name for path in data} <= set(found.stdout.split())


@pytest.mark.slow
def test_an_editable_install_is_the_checkout(copied, tmp_path):
    """Jobs and spaces are those of the checkout, by name, by file, and as ``import search_spaces``."""
    made = fresh_environment(tmp_path)
    made.install("--editable", copied)
    where = made.run("-c", "import ccim_ray, search_spaces.heads as s; print(ccim_ray.__file__, s.__file__)")
    assert where.stdout.split() == [
        str(copied / "ccim_ray" / "__init__.py"),
        str(copied / "search_spaces" / "heads.py"),
    ]
    assert str(copied / "jobs") in made.run("-c", "from ccim_ray.__main__ import job_files; print(job_files())").stdout
    made.plans("-m", "ccim_ray", "sweep_dict_size")
    made.plans(copied / "jobs" / "sweep_dict_size.py")


def test_home_is_beside_the_package_or_inside_it(tmp_path, monkeypatch):
    package = tmp_path / "ccim_ray"
    package.mkdir()
    monkeypatch.setattr(layout, "PACKAGE", package)
    job = ["jobs/train.py", "--quiet"]
    monkeypatch.chdir(tmp_path)
    assert (layout.home(), layout.is_installed()) == (tmp_path, False)
    assert typed_command(job) == "python jobs/train.py --quiet"
    (package / "shipped").mkdir()
    assert (layout.home(), layout.is_installed()) == (package / "shipped", True)
    assert typed_command(job) == "python jobs/train.py --quiet"
    assert typed_command(["ccim_ray/shipped/jobs/train.py", "--quiet"]) == "python -m ccim_ray train --quiet"


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
