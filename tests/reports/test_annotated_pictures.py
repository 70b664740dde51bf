"""Pictures with boxes and probabilities: what is drawn lies where it belongs."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from ccim_ray.reports.annotated_pictures import DrawnPerson, draw_persons, write_picture

ORANGE, BLUE = (ImageColor.getrgb(name) for name in ("#E69F00", "#56B4E9"))
TOP = (("Anger", 0.8), ("A category with a name that is far too long", 0.2), ("Sad", 0.0))


def share(sheet, colour, box):
    pixels_HWC = np.asarray(sheet.crop(box)).astype(int)
    return (abs(pixels_HWC - colour).max(2) < 3).mean()


def test_boxes_and_bars_have_the_persons_colours_and_sizes():
    image_HWC = np.full((600, 800, 3), 90, np.uint8)
    first, second = DrawnPerson(0, (100, 100, 300, 400), TOP), DrawnPerson(1, (500, 200, 700, 600), TOP[::-1])
    sheet = draw_persons(image_HWC, [first, second])
    assert sheet.height == 600
    assert sheet.width > 800
    for left, colour in ((100, ORANGE), (500, BLUE)):
        assert share(sheet, colour, (left, 300, left + 3, 350)) == 1
        assert share(sheet, colour, (left + 20, 300, left + 180, 350)) == 0
    panel = np.asarray(sheet)[:, 800:].astype(int)
    orange, blue = ((abs(panel - colour).max(2) < 3) for colour in (ORANGE, BLUE))
    assert orange[:100].sum(1).max() == pytest.approx(4 * orange[60:80].sum(1).max(), abs=4)  # 80 % and 20 %
    assert blue.any()
    assert np.flatnonzero(orange.any(1)).max() < np.flatnonzero(blue.any(1)).min()


@pytest.mark.parametrize(("size", "longer"), [((40, 60), 480), ((3000, 200), 1280), ((640, 480), 640)])
def test_pictures_are_drawn_in_a_size_that_can_be_read(size, longer):
    sheet = draw_persons(np.zeros((size[1], size[0], 3), np.uint8), [DrawnPerson(0, (0, 0, *size), TOP)])
    scale = longer / max(size)
    assert sheet.height >= round(size[1] * scale)
    drawn = np.asarray(sheet)
    paper = np.asarray(ImageColor.getrgb("#202020"))
    of_picture = ~(drawn == paper).all(2)[:, : round(size[0] * scale)]
    assert of_picture.any(1).sum() == pytest.approx(size[1] * scale, abs=8)


def test_more_persons_than_fit_are_counted_below_them():
    image_HWC = np.full((480, 640, 3), 90, np.uint8)
    few = [DrawnPerson(k, (k * 10, 0, k * 10 + 9, 400), TOP) for k in range(12)]
    many = [DrawnPerson(k, (k * 10, 0, k * 10 + 9, 400), TOP) for k in range(60)]
    first, second = draw_persons(image_HWC, few), draw_persons(image_HWC, many)
    assert second.width == first.width  # it grows to three columns and no further
    below = (640, 458, 1000, 480)
    assert len(set(first.crop(below).getdata())) == 1
    assert len(set(second.crop(below).getdata())) > 1


def test_a_box_at_the_border_or_of_a_pixel_is_drawn_all_the_same(tmp_path):
    persons = [DrawnPerson(0, (0.0, 0.0, 1.0, 1.0), TOP), DrawnPerson(1, (59.0, 39.0, 60.0, 40.0), TOP)]
    write_picture(np.zeros((40, 60, 3), np.uint8), persons, tmp_path / "a/b.png.jpg")
    with Image.open(tmp_path / "a/b.png.jpg") as written:
        assert written.format == "JPEG"
