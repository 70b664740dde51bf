"""What holds of the package as a whole: who may import what, how long files are, and what importing costs."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("ccim_ray", "jobs", "search_spaces")
HOMES = {"ray": "ccim_ray/pipeline/", "mlflow": "ccim_ray/tracking/"}
"""The only folder that may import each."""
MOST_LINES = 400


def modules_imported(path):
    """First names of all modules that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("name", HOMES)
def test_one_folder_alone_imports(name):
    files = [path for place in PLACES for path in (ROOT / place).rglob("*.py")]
    importing = {path.relative_to(ROOT).as_posix() for path in files if name in modules_imported(path)}
    assert importing
    assert all(path.startswith(HOMES[name]) for path in importing)


def test_no_file_is_longer_than_one_reads():
    files = [path for place in (*PLACES, "tests", "benchmarks", "docs") for path in (ROOT / place).rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_the_changelog_has_a_heading_for_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0] == "## [Unreleased]"
    assert headings[1].startswith(f"## [{version}] - ")


def test_importing_the_package_imports_no_heavy_library():
    code = (
        "import sys, ccim_ray; assert ccim_ray.__version__; assert 'torch' not in sys.modules; "
        "from ccim_ray import CCIM, ConfounderDictionary; "
        "assert not {'ray', 'mlflow', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
