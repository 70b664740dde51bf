"""MLflow's own pages in a real Chromium, on a sweep logged as a sweep logs it: open, filter, compare, artefacts."""

from __future__ import annotations

import pytest
from logged_runs import log_sweep
from tracking_server import Server
from untrained_model import write_untrained

from ccim_ray.datasets.registry import load_dataset
from ccim_ray.prepared import write_subject_index
from ccim_ray.reports.trial_report import model_example
from ccim_ray.run_notes import NOTE_TAG, sweep_note
from ccim_ray.tracking import LoggedData, Tracker

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

SPLITS = ("test_id", "test_do")
COMMAND = "python jobs/sweep_dict_size.py --preset smoke"
NAME = "confounded_scenes.dict_size.sweep1"
PATIENCE_MS = 90_000


@pytest.fixture(scope="module")
def logged(tmp_path_factory, small_world):
    """A server, the tracker of an experiment on it, and the run of a sweep with everything that a page can show."""
    folder = tmp_path_factory.mktemp("mlflow")
    server = Server(folder)
    try:
        tracker = Tracker(server.address, "confounded_scenes/dict_size", None)
        parent = log_sweep(tracker, folder)
        note = sweep_note("Does N matter?", {"ccim.command": COMMAND}, tracker.comparison_path("sweep1"), None)
        tracker._client.set_tag(parent, NOTE_TAG, note)
        data = LoggedData("confounded_scenes", "f1ng3rpr1nt", str(small_world), {"train": 40, "val": 10, "test_id": 10})
        (folder / "results.csv").write_text("setting,mean\nvanilla,0.51\n")
        tracker.log_artifacts(parent, [folder / "results.csv"])
        subjects = folder / "subjects.parquet"
        write_subject_index(load_dataset("confounded_scenes", small_world), subjects)
        write_untrained(folder / "model")
        for run in tracker.trials(parent):
            tracker.log_data(run.run_id, data)
            if run.name == "CCIM N=128, seed 1":
                tracker.log_model(run.run_id, folder / "model", *model_example(folder / "model", subjects))
        scores = [f"{split}/accuracy" for split in SPLITS]
        tracker.show_comparison("sweep1", "val/accuracy", scores, ["seed"])
        tracker.register_best(parent, NAME, "val/accuracy", "Does N matter?")
        yield server.address, tracker, parent
    finally:
        server.kill()


@pytest.fixture
def visit(browser, logged):
    """Opens a page of the server."""
    context = browser.new_context(viewport={"width": 2400, "height": 1200})
    context.set_default_timeout(PATIENCE_MS)

    def opened(place):
        page = context.new_page()
        page.goto(f"{logged[0]}/{place}")
        return page

    yield opened
    context.close()


def test_the_view_opens_grouped_by_setting_with_its_columns_and_charts(visit, logged):
    _, tracker, _ = logged
    page = visit(tracker.comparison_path("sweep1"))
    for setting in ("vanilla", "CCIM N=64", "CCIM N=128"):
        page.get_by_text(f"Group: {setting}", exact=True).wait_for()
    page.get_by_text("Group by: ccim.setting").wait_for()
    for chart in ("val/accuracy", "test_id/accuracy", "test_do/accuracy"):
        page.get_by_text(chart, exact=True).first.wait_for()
    page.locator("svg").get_by_text("0.61", exact=True).first.wait_for()  # the mean of three seeds, on its bar
    sections = [text for text in page.locator("body").inner_text().splitlines() if text in ("scores", "train", "val")]
    assert sections[0] == "scores"


def test_the_table_of_that_view_has_the_columns_that_matter(visit, logged):
    _, tracker, _ = logged
    page = visit(tracker.comparison_path("sweep1").replace("compareRunsMode=CHART&", ""))
    for column in ("val/accuracy", "test_id/accuracy", "test_do/accuracy", "seed"):
        page.get_by_role("columnheader").filter(has_text=column).first.wait_for()
    assert page.get_by_role("columnheader").filter(has_text="recall").count() == 0


def test_runs_are_filtered_and_two_of_them_compared(visit, logged):
    _, tracker, _ = logged
    page = visit(tracker.comparison_path("sweep1").partition("?")[0])
    page.get_by_text("10 matching runs").wait_for()
    page.get_by_test_id("search-box").fill("params.seed = '1'")
    page.keyboard.press("Enter")
    page.get_by_text("4 matching runs").wait_for()  # three, and the sweep that holds them
    page.locator("[data-component-id$='runnamecellrenderer.tsx_46']").first.click()
    for name in ("CCIM N=128, seed 1", "vanilla, seed 1"):
        page.get_by_role("row").filter(has_text=name).get_by_role("checkbox").first.click(force=True)
    assert page.get_by_text("seed 2").count() == 0
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
    for name in ("CCIM N=128, seed 1", "vanilla, seed 1"):
        page.get_by_text(name).first.wait_for()


def test_the_run_of_the_sweep_shows_its_note_and_its_artefacts(visit, logged):
    _, tracker, parent = logged
    of_run = tracker.comparison_path("sweep1").partition("?")[0] + f"/{parent}"
    page = visit(of_run)
    page.get_by_text(COMMAND).first.wait_for()
    page.get_by_text("Does N matter?").first.wait_for()
    page = visit(f"{of_run}/artifacts")
    page.get_by_text("results.csv").first.click()
    page.get_by_text("vanilla").first.wait_for()
    page.get_by_text("0.51").first.wait_for()


def test_a_trial_shows_its_data_and_the_registry_the_best_model(visit, logged):
    _, tracker, parent = logged
    (best,) = [run for run in tracker.trials(parent) if run.name == "CCIM N=128, seed 1"]
    page = visit(tracker.comparison_path("sweep1").partition("?")[0] + f"/{best.run_id}")
    page.get_by_text("f1ng3rpr").first.wait_for()
    page = visit(f"#/models/{NAME}")
    page.get_by_text("Does N matter?").first.wait_for()
    page.get_by_text("@ best").first.wait_for()
