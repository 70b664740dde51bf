"""One output in four forms: lines, tables and errors alone, JSON, and a view in a terminal."""

import json

import pytest
from rich.console import Console
from rich.table import Table

from ccim_ray import console
from ccim_ray.command_line import run
from ccim_ray.errors import RequestError
from ccim_ray.progress_view import ProgressView, StageProgress, duration, score_line


@pytest.fixture(autouse=True)
def plain_again():
    yield
    console.choose_output(quiet=False, log="text")


def table():
    made = Table(title="scores")
    made.add_column("setting")
    made.add_column("mean")
    made.add_row("[bold]CCIM[/bold]", "12.3")
    return made


def everything():
    console.say("  Training 3 trials")
    console.complain("trial 1 FAILED: [no] memory")
    console.show(table())
    with console.stage("extract", "subjects", 8) as progress:
        for _ in range(8):
            progress.advance(1)
    console.event("results", folder="runs")


def test_plain_lines(capsys):
    console.choose_output(quiet=False, log="text")
    everything()
    out = capsys.readouterr().out
    for expected in ("  Training 3 trials\n", "trial 1 FAILED: [no] memory\n", "CCIM", "  extract: 8 subjects in "):
        assert expected in out
    assert [line.split(",")[0] for line in out.splitlines() if " of 8 " in line] == [
        f"  extract: {done} of 8 subjects" for done in (2, 4, 6)
    ]
    assert "{" not in out


def test_quiet_leaves_tables_and_errors(capsys):
    console.choose_output(quiet=True, log="text")
    everything()
    out = capsys.readouterr().out
    assert "trial 1 FAILED: [no] memory\n" in out
    assert "12.3" in out
    assert "Training" not in out
    assert "extract" not in out


def test_json_is_one_object_a_line(capsys):
    console.choose_output(quiet=False, log="json")
    everything()
    console.event("trial", metrics={"train/loss": float("nan")}, reason=None)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(event["time"] > 0 for event in events)
    assert [event["event"] for event in events] == [
        "message",
        "problem",
        "table",
        *["stage"] * 5,
        "results",
        "trial",
    ]
    assert events[2]["columns"] == ["setting", "mean"]
    assert (events[2]["title"], events[2]["rows"]) == ("scores", [["CCIM", "12.3"]])
    assert [event["state"] for event in events[3:8]] == ["started", "running", "running", "running", "done"]
    assert [event["done"] for event in events[3:8]] == [0, 2, 4, 6, 8]
    assert events[-1]["metrics"] == {"train/loss": None}
    assert "reason" not in events[-1]


def test_flags_that_do_not_go_together_are_refused():
    with pytest.raises(RequestError, match="--quiet"):
        console.choose_output(quiet=True, log="json")
    with pytest.raises(RequestError, match="--log xml"):
        console.choose_output(quiet=False, log="xml")


def test_the_last_event_of_a_job_that_sigterm_ended_has_its_status(capsys):
    def job():
        raise SystemExit(143)

    console.choose_output(quiet=False, log="json")
    with pytest.raises(SystemExit) as left:
        run(job)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (left.value.code, last["event"], last["status"]) == (143, "end", 143)


def test_the_view_shows_stages_that_ended_and_that_run():
    view = ProgressView()
    first, second = (StageProgress(name, "pictures", 10, lambda stage: None) for name in ("render", "extract"))
    for stage in (first, second):
        view.add(stage)
    first.advance(10)
    first.end()
    second.advance(4)
    drawn = Console(width=120, record=True)
    with drawn.capture() as captured:
        drawn.print(view)
    render, extract = captured.get().splitlines()
    assert render.startswith("✓")
    assert "10 of 10 pictures" in render
    assert not extract.startswith("✓")
    assert "4 of 10 pictures" in extract
    assert "left" in extract


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (205, "3:25"), (7500, "2:05:00")])
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_scores_of_a_trial_begin_with_the_one_that_chooses_and_hold_nothing_else():
    metrics = {"test_do/accuracy": 0.458, "test_do/worst_group": 0.2, "val/loss": 0.7, "val/accuracy": 0.75}
    assert score_line(metrics) == "accuracy val 75.00%, test_do 45.80%"
    assert score_line({"test/mAP": 0.3, "val/mAP": 0.25, "val/AP/Peace": 0.1}) == "mAP val 25.00%, test 30.00%"
    assert score_line({}) == ""
