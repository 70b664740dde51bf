"""The sweep that nothing disturbed, and the table of faults at the end."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from chaos_runs import SEED, TABLE, run
from job_runs import TINY

SWEEP = (*TINY, "--sizes", "8")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage of a sweep that ran without interruption; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    end = run("sweep_dict_size", *SWEEP, "--storage", str(folder / "runs"), folder=folder / "log")
    assert end.status == 0, end
    return folder / "runs"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; CHAOS_TABLE names a file that takes it too."""
    if not TABLE.rows:
        return
    terminalreporter.section(f"faults, seed {SEED}, {datetime.now(UTC):%Y-%m-%d}")
    for line in TABLE.lines():
        terminalreporter.write_line(line)
    if "CHAOS_TABLE" in os.environ:
        path = Path(os.environ["CHAOS_TABLE"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*TABLE.lines(), ""]))
