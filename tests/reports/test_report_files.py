"""The report's three files say the same, hold nothing that a browser would run, and are linked to the runs."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from logged_runs import SPACE, VALUES, log_sweep, log_trial, metrics_of, open_sweep
from scipy import stats

from ccim_ray.errors import RequestError
from ccim_ray.reporting import ReportFlags, report
from ccim_ray.tracking import Tracker, read_experiments

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracker(uri, request):
    return Tracker(uri, f"caer_s/{request.node.name}", None)


@pytest.fixture
def write(tracker, tmp_path):
    def written(**flags):
        out = tmp_path / "written"
        assert report(ReportFlags(tracking_uri=tracker.uri, experiment=tracker.experiment, out=out, **flags)) == 0
        return {path.name: path.read_text() for path in out.iterdir()}

    return written


class Page(HTMLParser):
    """Texts of cells and headings, links, scripts, and the plots' data."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.links, self.scripts, self.attributes, self._open = [], [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr" and self.tables:
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "script":
            self.scripts.append(("", attributes.get("type")))
        if tag == "a":
            self.links.append(attributes["href"])
        self.attributes.setdefault(tag, []).append(attributes)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" in self._open:
            self.scripts[-1] = (self.scripts[-1][0] + data, self.scripts[-1][1])
        elif {"td", "th"} & set(self._open) and "button" not in self._open[-1:]:
            self.tables[-1][-1][-1] += data

    @property
    def plots(self):
        return json.loads(next(text for text, kind in self.scripts if kind == "application/json"))


def rows_of(page, place):
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in page.tables[place][1:]}


def test_page_markdown_and_latex_hold_the_same_numbers(tracker, write, tmp_path):
    log_sweep(tracker, tmp_path)
    files = write()
    assert sorted(files) == ["report.html", "report.md", "report.tex"]
    table = rows_of(Page(files["report.html"]), 1)  # test_do
    assert table["CCIM N=128"][:5] == ["3", "61.03 ± 1.05", "58.42 to 63.64", "+10.03", "<0.001"]
    assert table["CCIM N=64"][3:] == ["+0.40 ≈", "0.383"]
    assert table["chance"] == ["", "18.17", "", "", ""]
    assert "| CCIM N=128 | 3 | **61.03** ± 1.05 | 58.42 to 63.64 | +10.03 | <0.001 |" in files["report.md"]
    assert r"CCIM N=128 & \textbf{81.03} $\pm$ 1.05 & \textbf{61.03} $\pm$ 1.05 \\" in files["report.tex"]
    verdict = "1 of 2 differs from vanilla beyond noise: CCIM N=128 +10.03"
    assert verdict in files["report.html"]
    assert f"- test_do/accuracy: {verdict}" in files["report.md"]
    for text in files.values():
        assert "Does N matter?" in text
    for text in (files["report.html"], files["report.md"]):
        assert all(value in text for value in ("f1ng3r", "c0ffee", "2.14.1"))


def test_every_seed_links_to_its_run(tracker, write, tmp_path):
    parent = log_sweep(tracker, tmp_path)
    (experiment,) = read_experiments(tracker.uri, tracker.experiment)
    base = "http://127.0.0.1:5000/#/experiments/"
    links = set(Page(write()["report.html"]).links)
    for run in experiment.runs:
        assert f"{base}{experiment.experiment_id}/runs/{run.run_id}" in links
    assert parent in {run.run_id for run in experiment.runs}
    elsewhere = Page(write(mlflow_url="https://user:secret@mlflow.lab/team/")["report.html"])
    runs = [link for link in elsewhere.links if "/runs/" in link]
    assert {urlsplit(link).netloc for link in runs} == {"mlflow.lab"}
    assert all(link.startswith("https://mlflow.lab/team/#/experiments/") for link in runs)


def test_plots_hold_the_means_intervals_seeds_and_curves(tracker, write, tmp_path):
    log_sweep(tracker, tmp_path)
    page = Page(write()["report.html"])
    plots = [page.plots[box["data-plot"]] for box in page.attributes["div"] if "data-plot" in box]
    curve, settings = plots[1]["views"]
    assert curve["name"] == "dictionary size N"
    assert (curve["data"][0]["x"], curve["data"][0]["y"]) == ([64, 128], [51.4, 61.0333])
    seeds, means = settings["data"]
    assert means["y"] == list(VALUES)
    assert means["x"] == [51.0, 51.4, 61.0333]
    sample = [100 * value for value in VALUES["CCIM N=128"].values()]
    high = stats.t.interval(0.95, 2, 61.0333, stats.sem(sample))[1]
    assert means["error_x"]["array"][2] == pytest.approx(high - 61.0333, abs=1e-3)
    colours = means["marker"]["color"]
    assert (colours[1], colours[2]) == ("--surface", "--accent")  # hollow: cannot be told from vanilla
    assert sorted(seeds["x"]) == sorted(100 * value for of in VALUES.values() for value in of.values())
    split = next(view for view in plots[2]["views"] if view["name"] == "test_do")
    (map_,) = split["data"]
    assert (map_["x"], map_["y"]) == (["CCIM N=64", "CCIM N=128"], ["Anger", "Sad"])
    assert map_["z"] == [[0.4, 10.0333]] * 2
    (learning,) = plots[3]["views"]
    # The step after the last epoch holds the value of the kept model, and is no epoch.
    assert (learning["data"][0]["x"], learning["data"][0]["y"]) == ([1, 2, 3], [41.0, 51.0, 51.0])


def test_what_is_not_in_the_numbers_is_named_in_all_three(tracker, write, capsys):
    parent = open_sweep(tracker, seeds=(0, 1))
    log_trial(tracker, parent, "vanilla", 0, metrics_of(0.5))
    log_trial(tracker, parent, "CCIM N=64", 0, {}, status="FAILED", reason="failed: CUDA out of memory")
    files = write()
    printed = capsys.readouterr().out
    for text in (printed, files["report.md"], files["report.html"]):
        plain = re.sub(r"<[^>]+>", "", text)
        assert "CUDA out of memory" in plain
        assert "CCIM N=128, seed 1: not started" in plain
        assert "1 finished trial is in these numbers; the 5 that are not are named below." in plain
    assert "5 trials are not in the numbers" in files["report.html"]
    assert "5 trials are not in the numbers" in files["report.tex"]


def test_text_of_others_is_text_everywhere(tracker, write, uri, tmp_path):
    space = replace(SPACE, question=f"Why {HOSTILE}?", changes={"vanilla": {}, HOSTILE: {}}, axis={HOSTILE: 64})
    space = replace(space, axis_label=f"</script>{HOSTILE}")
    note = f"format unverified {HOSTILE} | & \\input{{x}}"
    parent = open_sweep(tracker, space, seeds=(0, 1), **{"ccim.note": note, "ccim.command": HOSTILE})
    for setting in space.changes:
        for seed in (0, 1):
            tags = {"mlflow.source.git.commit": HOSTILE}
            log_trial(tracker, parent, setting, seed, metrics_of(0.5 + 0.01 * seed), dataset=HOSTILE, **tags)
    log_trial(tracker, parent, HOSTILE, 2, {}, status="FAILED", reason=HOSTILE)
    files = write()
    page = Page(files["report.html"])
    assert not any("alert(1)" in text for text, kind in page.scripts if kind is None)
    assert len([kind for _, kind in page.scripts if kind is None]) == 2
    assert "<script>alert" not in files["report.html"]
    assert "<script" not in files["report.md"]
    # A view's name is put on a button as text; all else is read by plotly, as HTML.
    views = [dict(view, name="") for plot in page.plots.values() for view in plot["views"]]
    drawn = json.dumps(views)
    assert "alert(1)" in drawn  # the setting is drawn
    assert "<script" not in drawn
    assert "format unverified" in files["report.html"].split("<h2")[2]
    assert r"\input{x}" not in files["report.tex"]
    assert not any(attribute.startswith("on") for tags in page.attributes.values() for t in tags for attribute in t)


def test_a_category_named_as_a_script_is_text_too(tracker, tmp_path):
    """MLflow itself refuses such a name; a server that does not would send it like this."""
    from ccim_ray.logged_sweeps import collect_sweeps
    from ccim_ray.reports.report_page import Source, report_page

    log_sweep(tracker, tmp_path)
    (experiment,) = read_experiments(tracker.uri, tracker.experiment)
    runs = [
        replace(run, metrics={name.replace("Anger", HOSTILE): value for name, value in run.metrics.items()})
        for run in experiment.runs
    ]
    (sweep,) = collect_sweeps([replace(experiment, runs=tuple(runs))])
    assert sweep.categories == (HOSTILE, "Sad")
    source = Source(tracking_uri="sqlite:///x", mlflow_url="http://127.0.0.1:5000", mlflow_command="", made=0.0)
    text = report_page([sweep], {}, source)
    page = Page(text)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in json.dumps(page.plots)


def test_a_wrong_request_is_one_line_that_names_the_flag(tracker, tmp_path):
    open_sweep(tracker)
    for flags, found in (
        ({"sweep": "nothing"}, "--sweep nothing: .*choose one of .*sweep1"),
        ({"mlflow_url": "javascript:alert(1)"}, "--mlflow-url javascript:"),
        ({"experiment": "nothing"}, "--experiment nothing: "),
    ):
        with pytest.raises(RequestError, match=found):
            report(ReportFlags(tracking_uri=tracker.uri, out=tmp_path, **flags))
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="file"):
        report(ReportFlags(tracking_uri=tracker.uri, out=tmp_path / "file"))


def test_one_sweep_of_several_is_chosen_by_its_id(tracker, write):
    for name in ("first", "second"):
        parent = open_sweep(tracker, sweep_id=name, seeds=(0,))
        log_trial(tracker, parent, "vanilla", 0, metrics_of(0.5 if name == "first" else 0.6))
    text = write(sweep="second")["report.md"]
    assert "60.00" in text
    assert "50.00" not in text
    assert "50.00" in write()["report.md"]


def test_sweeps_of_one_space_are_told_apart_by_what_differs(tracker, write):
    for name, bias in (("first", "0.8"), ("second", "0.95")):
        parent = open_sweep(tracker, sweep_id=name, seeds=(0,))
        log_trial(tracker, parent, "vanilla", 0, metrics_of(0.5), parameters={"world.bias": bias, "epochs": "10"})
    text = write()["report.md"]
    assert ", world.bias 0.8:" in text
    assert ", world.bias 0.95:" in text
    assert "epochs" not in text
    assert "world.bias" not in write(sweep="second")["report.md"]
