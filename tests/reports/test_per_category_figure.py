"""Fig. 5: every mean stands in the page where its category, setting and panel say."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ccim_ray.reports.per_category_figure import SETTING_COLOURS, per_category_figure
from ccim_ray.reports.tables import build_rows

CATEGORIES = ("Anger", "Happy", "Sad/Blue")
SETTINGS = ("vanilla", "W_h alone", "CCIM")


def rows_of(baselines=("EMOT-Net", "GCN-CNN"), settings=SETTINGS, seeds=3, kind="recall", categories=CATEGORIES):
    draw = np.random.default_rng(0)
    metrics = [f"{split}/{kind}/{name}" for split in ("test_id", "test_do") for name in categories]
    rows = []
    for baseline in baselines:
        results = {
            setting: {seed: {metric: 0.5 + 0.02 * draw.random() for metric in metrics} for seed in range(seeds)}
            for setting in settings
        }
        if "CCIM" in settings:  # one difference that is beyond noise
            for seed, values in results["CCIM"].items():
                values[metrics[0]] = results["vanilla"][seed][metrics[0]] + 0.3 + 0.0001 * seed
        rows += build_rows("caer_s", baseline, results, metrics, "vanilla", {})
    return rows


def draw(rows, folder):
    png, html = folder / "figures" / "categories.png", folder / "figures" / "categories.html"
    per_category_figure(rows, "Does CCIM help?", png, html)
    return png, html


def page_of(html):
    """Traces and layout that the page hands to plotly."""
    text = html.read_text()
    start = text.index("[{", text.rindex("Plotly.newPlot("))
    traces, end = json.JSONDecoder().raw_decode(text[start:])
    layout, _ = json.JSONDecoder().raw_decode(text[text.index("{", start + end) :])
    return traces, layout


def numbers(values):
    """Plotly writes longer arrays as base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"])).tolist()
    return values


def test_the_page_has_a_bar_for_every_category_of_every_setting_and_panel(tmp_path):
    rows = rows_of()
    traces, layout = page_of(draw(rows, tmp_path)[1])
    assert len(traces) == 2 * 2 * len(SETTINGS)
    headings = [note["text"] for note in layout["annotations"]]
    assert headings == [
        f"{baseline}, {split}" for baseline in ("EMOT-Net", "GCN-CNN") for split in ("test_id", "test_do")
    ]
    for panel, heading in enumerate(headings):
        baseline, split = heading.split(", ")
        for trace in traces[panel * 3 : panel * 3 + 3]:
            wanted = [
                row
                for row in rows
                if (row.baseline, row.setting) == (baseline, trace["name"]) and row.metric.startswith(f"{split}/")
            ]
            assert trace["x"] == list(CATEGORIES)
            assert numbers(trace["y"]) == pytest.approx([100 * row.mean for row in wanted])
            assert numbers(trace["error_y"]["array"]) == pytest.approx([100 * row.sd for row in wanted])
            assert f"{100 * wanted[0].ci_low:.2f} to {100 * wanted[0].ci_high:.2f}" in trace["customdata"][0]
    assert [trace["name"] for trace in traces if trace["showlegend"]] == list(SETTINGS)


def colours_in(path):
    """Pixels of each colour."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), 2, 0)
    values, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    return {f"#{value:06X}": int(count) for value, count in zip(values, counts, strict=True)}


def test_the_picture_has_bars_of_every_setting(tmp_path):
    found = colours_in(draw(rows_of(), tmp_path)[0])
    heights = [found[colour] for colour in SETTING_COLOURS[:3]]
    assert min(heights) > 5000
    assert heights[2] > heights[1]  # the category in which CCIM gains
    assert not set(SETTING_COLOURS[3:7]) & set(found)


def test_many_categories_stand_below_each_other(tmp_path):
    many = tuple(f"category {number}" for number in range(26))
    rows = rows_of(baselines=("EMOT-Net",), kind="AP", categories=many)
    with Image.open(draw(rows, tmp_path)[0]) as image:
        assert image.width > 1500
        assert image.width < 3 * image.height
    traces, layout = page_of(draw(rows, tmp_path)[1])
    assert layout["yaxis"]["title"]["text"] == "average precision (%)"
    assert len(traces[0]["x"]) == 26


def test_more_settings_than_colours_are_told(tmp_path):
    settings = ("vanilla", *(f"change {number}" for number in range(11)))
    traces, layout = page_of(draw(rows_of(settings=settings), tmp_path)[1])
    assert {trace["name"] for trace in traces} == set(settings[: len(SETTING_COLOURS)])
    assert "8 of 12 settings drawn" in layout["title"]["text"]


def test_what_was_not_measured_is_left_out(tmp_path):
    rows = [row for row in rows_of(seeds=1) if not (row.setting == "CCIM" and row.metric.endswith("Happy"))]
    traces, layout = page_of(draw(rows, tmp_path)[1])
    assert {tuple(trace["x"]) for trace in traces if trace["name"] == "CCIM"} == {("Anger", "Sad/Blue")}
    assert "one seed, so no whiskers" in layout["title"]["text"]
    with pytest.raises(ValueError, match="no value"):
        draw(build_rows("caer_s", "EMOT-Net", {"vanilla": {}}, ["test/recall/Anger"], "vanilla", {}), tmp_path)


class Tags(HTMLParser):
    """Scripts, and every other tag, of a page."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.tags, self._in_script = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data


def test_names_of_others_are_text_in_page_and_picture(tmp_path):
    """A dollar sign begins a formula in matplotlib, and one that is none ends the drawing."""
    categories = (
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "$\\frac{1}{$ of \\begin",
        "a_b^c%&",
    )
    settings = ("vanilla", "</script><script>alert(2)</script> $\\sqrt$")
    _, html = draw(rows_of(settings=settings, categories=categories), tmp_path)
    page = Tags(html.read_text())
    assert "alert(1)" in "".join(page.scripts)  # it is among the data
    assert not any(script.startswith("alert(") for script in page.scripts)
    assert "img" not in page.tags
