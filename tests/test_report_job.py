"""The report as a user asks for it: one command, one line where there is nothing to report."""

import shutil

from job_runs import run_job
from logged_runs import log_sweep

from ccim_ray.tracking import Tracker


def test_a_report_needs_nothing_but_the_database(tmp_path):
    storage = tmp_path / "runs"
    nothing = run_job("report", "--storage", str(storage))
    assert (nothing.status, nothing.out) == (2, "")
    assert nothing.err.startswith(f"error: nothing to report in MLflow at sqlite:///{storage}/mlflow.db")
    assert nothing.err.count("\n") == 1
    assert not storage.exists()

    log_sweep(Tracker(f"sqlite:///{storage}/mlflow.db", "confounded_scenes/dict_size", None), tmp_path)
    for folder in (path for path in storage.iterdir() if path.is_dir()):
        shutil.rmtree(folder)
    made = run_job("report", "--storage", str(storage))
    assert (made.status, made.err) == (0, "")
    assert "9 finished trials are in these numbers, and none is left out." in made.out
    for name in ("report.html", "report.md", "report.tex"):
        assert f"Wrote {storage}/report/{name}" in made.out
        assert "61.03" in (storage / "report" / name).read_text()
