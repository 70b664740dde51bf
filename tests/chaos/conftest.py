"""The sweep that nothing disturbed, and the table of faults at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from chaos_runs import SEED, TABLE, Row, Table, run
from job_runs import TINY

SWEEP = (*TINY, "--sizes", "8")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage of a sweep that ran without interruption; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    end = run("sweep_dict_size", *SWEEP, "--storage", str(folder / "runs"), folder=folder / "log")
    assert end.status == 0, end
    return folder / "runs"


ROWS: dict[str, Row] = {}
"""Of all tests that ended, also of those that another process ran."""


@pytest.fixture(autouse=True)
def told_with_the_report(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test's rows travel with its report, for tests run in several processes."""
    TABLE.rows.clear()
    yield
    request.node.user_properties.append(("faults", dict(TABLE.rows)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for name, rows in report.user_properties:
            if name == "faults":
                ROWS.update({fault: tuple(row) for fault, row in rows.items()})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; CHAOS_TABLE names a file that takes it too."""
    if not ROWS:
        return
    lines = Table(ROWS).lines()
    terminalreporter.section(f"faults, seed {SEED}, {datetime.now(UTC):%Y-%m-%d}")
    for line in lines:
        terminalreporter.write_line(line)
    if "CHAOS_TABLE" in os.environ:
        path = Path(os.environ["CHAOS_TABLE"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*lines, ""]))
