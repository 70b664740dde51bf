"""Fig. 8: a picture for every case, with its box; Fig. 7: a point for every subject, in the colour of its value."""

import numpy as np
import pytest
from PIL import Image

from ccim_ray.errors import RequestError
from ccim_ray.reports.cases_figure import BOX_COLOUR, Case, cases_figure
from ccim_ray.reports.feature_map_figure import OTHER_COLOUR, VALUE_COLOURS, Colouring, FeatureMap, feature_map_figure

CATEGORIES = ("Anger", "Happy", "Sad", "Neutral")
PICTURE_COLOURS = ("#112233", "#445566", "#778899", "#AA2244", "#22AA44", "#2244AA", "#664400", "#006644")


def case_of(folder, colour, size=(60, 40)):
    path = folder / f"{colour[1:]}.png"
    Image.new("RGB", size, colour).save(path)
    return Case(
        path, (10.0, 5.0, 30.0, 35.0), ("Happy",), "scene: park", np.array([[0.7, 0.1, 0.1, 0.1]] * 2, np.float32)
    )


def colours_in(path):
    """Pixels of each colour."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), 2, 0)
    values, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    return {f"#{value:06X}": int(count) for value, count in zip(values, counts, strict=True)}


def draw(folder, per_section):
    cases = [case_of(folder, colour) for colour in PICTURE_COLOURS]
    sections = {
        f"vanilla wrong: {per_section} of 9": cases[:per_section],
        f"CCIM wrong: {per_section} of 12": cases[per_section : 2 * per_section],
    }
    cases_figure(sections, ("vanilla", "CCIM"), CATEGORIES, "Cases", folder / "cases.png")
    return colours_in(folder / "cases.png")


@pytest.mark.parametrize("per_section", [1, 2])
def test_every_case_has_its_picture_and_a_box(tmp_path, per_section):
    found = draw(tmp_path, per_section)
    shown = PICTURE_COLOURS[: 2 * per_section]
    assert all(found.get(colour, 0) > 2000 for colour in shown)
    assert not set(PICTURE_COLOURS[2 * per_section :]) & set(found)
    assert found[BOX_COLOUR] > 300 * per_section


def test_more_cases_than_columns_go_to_the_next_row(tmp_path):
    cases = [case_of(tmp_path, colour) for colour in PICTURE_COLOURS]
    cases_figure({"a": cases, "b": cases[:1]}, ("vanilla", "CCIM"), CATEGORIES, "Cases", tmp_path / "cases.png")
    assert all(colours_in(tmp_path / "cases.png").get(colour, 0) > 2000 for colour in PICTURE_COLOURS)


def test_a_missing_picture_is_told_in_one_line(tmp_path):
    case = case_of(tmp_path, "#112233")
    case.image.unlink()
    with pytest.raises(RequestError, match=r"112233\.png.*put the picture back"):
        cases_figure({"a": [case]}, ("vanilla", "CCIM"), CATEGORIES, "Cases", tmp_path / "cases.png")
    with pytest.raises(ValueError, match="no case"):
        cases_figure({"a": []}, ("vanilla", "CCIM"), CATEGORIES, "Cases", tmp_path / "cases.png")


def test_the_most_frequent_values_have_a_colour_and_the_others_are_grey(tmp_path):
    scenes = [f"scene {number:02d}" for number in range(10) for _ in range(20 - number)]
    map_S2 = np.random.default_rng(0).normal(size=(len(scenes), 2)).astype(np.float32)
    maps = [FeatureMap(title, map_S2, ["probe 50 %"]) for title in ("vanilla", "CCIM")]
    feature_map_figure(maps, [Colouring("scene", scenes)], "Features", tmp_path / "many.png")
    many = colours_in(tmp_path / "many.png")
    few = [Colouring("scene", ["park" if scene < "scene 05" else "farm" for scene in scenes])]
    feature_map_figure(maps, few, "Features", tmp_path / "few.png")
    shades = colours_in(tmp_path / "few.png").get(OTHER_COLOUR, 0)  # of letters
    assert many[OTHER_COLOUR] > 200 + 3 * shades
    assert len(VALUE_COLOURS) == len(set(VALUE_COLOURS)) == 8
