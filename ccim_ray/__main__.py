"""`python -m ccim_ray` lists the jobs; `python -m ccim_ray JOB FLAGS` runs one, as `python jobs/JOB.py FLAGS` does."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

from ccim_ray.command_line import fail
from ccim_ray.layout import home


def job_files() -> dict[str, Path]:
    """The file of every job by name."""
    return {path.stem: path for path in sorted((home() / "jobs").glob("*.py")) if path.stem != "__init__"}


def question(path: Path) -> str:
    """The first line of a job's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def listing() -> str:
    """A line a job, and how to run one."""
    files = job_files()
    width = max(map(len, files))
    lines = [f"  {name:<{width}}  {question(path)}" for name, path in files.items()]
    how = ("Run one:    python -m ccim_ray JOB, such as python -m ccim_ray sweep_dict_size --preset smoke",)
    return "\n".join(("Jobs:", *lines, "", *how, "Its flags:  python -m ccim_ray JOB --help"))


def main() -> None:
    """List the jobs, or become one of them."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(listing())
        return
    _, name, *flags = sys.argv
    path = job_files().get(name)
    if path is None:
        fail(f"{name}: there is no such job; python -m ccim_ray lists them")
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    sys.argv = [str(shown), *flags]
    sys.path.insert(0, str(home()))  # where the job finds search_spaces
    runpy.run_path(str(shown), run_name="__main__")


if __name__ == "__main__":
    main()
