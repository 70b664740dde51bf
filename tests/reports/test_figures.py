"""Figures show the numbers they were given, in files that need nothing else."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ccim_ray.reports.figures import confusion_matrix, per_category_chart, sweep_curve
from ccim_ray.reports.tables import build_rows, constant_row

SIZES = (64, 128, 256, 512)
AXIS = {f"CCIM N={size}": size for size in SIZES}
METRICS = ["test_id/accuracy", "test_do/accuracy"]
CURVE_RGB = (0x00, 0x72, 0xB2)


def sweep_rows(seeds=3):
    draw = np.random.default_rng(0)
    results = {
        setting: {seed: {metric: 0.6 + 0.02 * draw.random() for metric in METRICS} for seed in range(seeds)}
        for setting in ("vanilla", "vanilla + head", *AXIS)
    }
    rows = build_rows("caer_s", "EMOT-Net", results, METRICS, "vanilla", {})
    return [*rows, *(constant_row("caer_s", "EMOT-Net", "chance", metric, 1 / 7) for metric in METRICS)]


def draw(rows, folder):
    png, html = folder / "figures" / "sweep.png", folder / "figures" / "sweep.html"
    sweep_curve(rows, AXIS, "vanilla", "Does N matter?", "dictionary size N", png, html)
    return png, html


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def traces(html):
    """The data that the page hands to plotly."""
    text = html.read_text()
    start = text.rindex("Plotly.newPlot(")
    data = text.index("[{", start)
    return json.JSONDecoder().raw_decode(text[data:])[0]


def numbers(values):
    """Plotly writes longer arrays as base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"])).tolist()
    return values


def test_the_page_holds_every_mean_and_interval(tmp_path):
    rows = sweep_rows()
    _, html = draw(rows, tmp_path)
    curves = [trace for trace in traces(html) if trace.get("mode") == "lines+markers"]
    assert len(curves) == len(METRICS)
    for metric, curve in zip(METRICS, curves, strict=True):
        wanted = [row for row in rows if row.metric == metric and row.setting in AXIS]
        assert numbers(curve["x"]) == list(SIZES)
        assert numbers(curve["y"]) == pytest.approx([100 * row.mean for row in wanted])
        upper = np.add(numbers(curve["y"]), numbers(curve["error_y"]["array"]))
        assert upper == pytest.approx([100 * row.ci_high for row in wanted])
    names = {trace.get("name") for trace in traces(html)}
    assert {"vanilla", "vanilla + head"} <= names
    assert "chance" not in names  # far off the axis: noted at the edge instead
    assert "chance 14.3" in html.read_text()


class Links(HTMLParser):
    """Addresses that a browser would ask for when it opens the page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_asks_the_network_for_nothing(tmp_path):
    _, html = draw(sweep_rows(), tmp_path)
    text = html.read_text()
    links = Links()
    links.feed(text)
    assert links.found == []
    assert re.search(r'"showSendToCloud":\s*false', text)


@pytest.mark.browser
def test_a_browser_draws_the_page_without_a_request(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    _, html = draw(sweep_rows(), tmp_path)
    requests, errors = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(html.as_uri())
        page.wait_for_selector(".main-svg")
        titles = page.locator(".xtitle, .x2title").all_text_contents()
        browser.close()
    assert (requests, errors) == ([html.as_uri()], [])
    assert titles == ["dictionary size N"] * 2


def test_the_picture_has_one_panel_a_metric(tmp_path):
    rows = sweep_rows()
    both, _ = draw(rows, tmp_path / "both")
    one, _ = draw([row for row in rows if row.metric == METRICS[0]], tmp_path / "one")
    assert pixels(both).shape[1] > 1.5 * pixels(one).shape[1]
    assert (pixels(one) == CURVE_RGB).all(-1).sum() > 500
    assert sorted(path.name for path in both.parent.iterdir()) == ["sweep.html", "sweep.png"]


def test_one_seed_and_missing_settings_are_drawn_without_interval(tmp_path):
    rows = [row for row in sweep_rows(seeds=1) if row.setting != "CCIM N=128"]
    png, html = draw(rows, tmp_path)
    curve = next(trace for trace in traces(html) if trace.get("mode") == "lines+markers")
    assert numbers(curve["x"]) == [64, 256, 512]
    assert pixels(png).std() > 0


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no value"):
        draw([], tmp_path)


def test_a_confusion_matrix_is_darkest_where_the_counts_are(tmp_path):
    counts_KK = np.array([[98, 1, 1], [50, 50, 0], [0, 0, 0]])
    confusion_matrix(counts_KK, ["Anger", "Doubt/Confusion", "Fear"], tmp_path / "c.png")
    picture = pixels(tmp_path / "c.png")
    empty = np.zeros((3, 3), int)
    confusion_matrix(empty, ["Anger", "Doubt/Confusion", "Fear"], tmp_path / "empty.png")
    # 98 % of a row is nearly the darkest blue of the map, and a matrix of nothing has no such cell.
    dark = (picture[..., 2] > 90) & (picture[..., 0] < 20)
    dark_empty = pixels(tmp_path / "empty.png")
    assert dark.sum() > 5000
    assert ((dark_empty[..., 2] > 90) & (dark_empty[..., 0] < 20)).sum() < dark.sum() / 2


def test_many_categories_have_a_bar_of_colours_instead_of_numbers(tmp_path):
    """Its darkest end is at the top right, where a matrix of sound answers is pale."""
    for size, has_bar in ((2, False), (26, True)):
        confusion_matrix(10 * np.eye(size, dtype=int), [f"c{n}" for n in range(size)], tmp_path / "c.png")
        picture = pixels(tmp_path / "c.png")
        corner = picture[: picture.shape[0] // 3, picture.shape[1] * 17 // 20 :]
        assert ((corner[..., 2] > 90) & (corner[..., 0] < 20)).any() == has_bar


def test_a_long_note_takes_lines_and_leaves_the_matrix_its_size(tmp_path):
    counts_KK = np.array([[9, 1], [0, 10]])
    note = "caer_net is approximate: " + "face hidden by an ellipse, its context pooled by a sum; " * 5
    sizes = []
    for title in ("", note):
        confusion_matrix(counts_KK, ["Anger", "Fear"], tmp_path / "c.png", title)
        picture = pixels(tmp_path / "c.png")
        sizes.append(((picture[..., 2] > 90) & (picture[..., 0] < 20)).sum())
    assert sizes[0] > 5000
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_bars_are_as_long_as_their_values(tmp_path):
    values = {"Anger": 0.1, "Peace": 0.4, "Doubt/Confusion": 0.2}
    per_category_chart(values, tmp_path / "p.png")
    blue = (pixels(tmp_path / "p.png") == CURVE_RGB).all(-1).sum(1)
    lengths = [int(np.median(run)) for run in np.split(blue, np.flatnonzero(np.diff(blue > 20)) + 1) if run[0] > 20]
    assert len(lengths) == 3
    # Best first; the dashed line of the mean covers a few pixels.
    assert np.array(lengths) / lengths[0] == pytest.approx([1, 0.5, 0.25], abs=0.03)


def test_no_category_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no category"):
        per_category_chart({}, tmp_path / "p.png")
