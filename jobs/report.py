"""Tables, plots and sentences from what MLflow holds, as one page, Markdown and LaTeX. Nothing is trained.

Command:   python jobs/report.py
Hardware:  any
Expected:  report/report.html, .md and .tex in the storage, in seconds.
"""

from __future__ import annotations

from ccim_ray.command_line import parse, run
from ccim_ray.reporting import ReportFlags, report


def main() -> int:
    return report(parse(ReportFlags, (__doc__ or "").partition("\n")[0]))


if __name__ == "__main__":
    run(main)
