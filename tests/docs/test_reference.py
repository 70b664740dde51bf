"""The reference pages are what the code says: made again they are the same, and a job's --help lists those flags."""

import importlib.util
import re
from pathlib import Path

import pytest
from job_runs import run_job

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("name", ["jobs.md", "experiment.md"])
def test_the_committed_page_is_what_the_code_makes(made, name):
    committed = (ROOT / "docs" / "reference" / name).read_text()
    assert committed == made[name], "run: python docs/make_reference.py"


def flags_on_page(page, job):
    """Flags of a job's own table and of the tables that its section refers to, without those that it hides."""
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", page, re.MULTILINE))
    own = sections[f"{job}.py"]
    shared = re.findall(r"\[([^\]]+)\]\(#", own)
    tables = [own, *(sections[title] for title in shared)]
    listed = {flag for table in tables for flag in re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE)}
    hidden = own.partition("does not have")[2]
    return listed - set(re.findall(r"`(--[\w-]+)`", hidden))


@pytest.mark.parametrize("job", ["tune_hyperparameters", "compare_baselines"])
def test_help_lists_the_flags_of_the_page(made, job):
    helped = run_job(job, "--help").out
    assert set(re.findall(r"^│? *(--[\w-]+)", helped, re.MULTILINE)) - {"--help"} == flags_on_page(made["jobs.md"], job)
