"""Decoding of every kind of picture found in the wild, and the views of a subject."""

import contextlib
import io
import math
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from ccim_ray.datasets import images
from ccim_ray.datasets.images import UnreadableImage


def photo(width=40, height=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, image_format, **options):
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def png_header(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_rgb_comes_back_bit_for_bit_and_writeable(tmp_path):
    expected_HWC = photo()
    Image.fromarray(expected_HWC).save(tmp_path / "a.png")
    found_HWC = images.read_rgb(tmp_path / "a.png")
    np.testing.assert_array_equal(found_HWC, expected_HWC)
    found_HWC[0, 0] = 0


def test_grey_and_grey_with_alpha_repeat_the_grey(tmp_path):
    grey_HW = photo()[:, :, 0]
    Image.fromarray(grey_HW).save(tmp_path / "l.png")
    Image.merge("LA", [Image.fromarray(grey_HW), Image.new("L", (40, 30), 7)]).save(tmp_path / "la.png")
    for name in ("l.png", "la.png"):
        found_HWC = images.read_rgb(tmp_path / name)
        np.testing.assert_array_equal(found_HWC, np.stack([grey_HW] * 3, axis=2))


def test_sixteen_bit_grey_is_scaled_not_saturated(tmp_path):
    grey_HW = np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(30, 40)
    Image.fromarray(grey_HW).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "a.png")[:, :, 1], grey_HW // 256)


def test_alpha_is_dropped(tmp_path):
    rgba_HWC = np.dstack([photo(), np.full((30, 40), 3, np.uint8)])
    Image.fromarray(rgba_HWC).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "a.png"), rgba_HWC[:, :, :3])


def test_palette_gives_its_colours_with_and_without_transparency(tmp_path):
    indices_HW = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [5, 5, 250]], np.uint8)
    image = Image.fromarray(indices_HW)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "p.png")
    image.save(tmp_path / "transparent.png", transparency=bytes([0, 128, 255, 255]))
    for name in ("p.png", "transparent.png"):
        np.testing.assert_array_equal(images.read_rgb(tmp_path / name), colours[indices_HW])


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red_HWC = images.read_rgb(tmp_path / "red.jpg")
    assert red_HWC.shape == (16, 16, 3)
    np.testing.assert_allclose(red_HWC[8, 8], [255, 0, 0], atol=6)


def test_bilevel_becomes_black_and_white(tmp_path):
    Image.new("1", (9, 5), 1).save(tmp_path / "a.png")
    assert (images.read_rgb(tmp_path / "a.png") == 255).all()


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "a.gif")[0, 0], [255, 0, 0])


def test_content_decides_not_the_suffix(tmp_path):
    (tmp_path / "really_png.jpg").write_bytes(encoded(Image.fromarray(photo()), "PNG"))
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "really_png.jpg"), photo())


def test_exif_orientation_is_left_alone_since_boxes_are_in_stored_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter turn when shown
    Image.fromarray(photo(40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert images.read_rgb(tmp_path / "a.jpg").shape == (30, 40, 3)
    assert images.read_size(tmp_path / "a.jpg") == (40, 30)
    assert images.is_stored_turned(tmp_path / "a.jpg")


@pytest.mark.parametrize("orientation", [None, 1])
def test_a_picture_that_is_shown_as_stored_is_not_turned(tmp_path, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(photo(40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert not images.is_stored_turned(tmp_path / "a.jpg")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_truncated_picture_is_named_though_its_header_is_whole(tmp_path, image_format):
    path = tmp_path / "a.bin"
    content = encoded(Image.fromarray(photo(300, 200)), image_format)
    path.write_bytes(content[: len(content) * 2 // 3])
    assert images.read_size(path) == (300, 200)
    with pytest.raises(UnreadableImage) as failure:
        images.read_rgb(path)
    assert failure.value.reason == "truncated or damaged image"
    assert str(path) in str(failure.value)


@pytest.mark.parametrize("reader", [images.read_rgb, images.read_size])
def test_missing_foreign_and_empty_files_are_named(tmp_path, reader):
    (tmp_path / "page.png").write_text("<html>404</html>")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "drawing.eps")
    reasons = {}
    for name in ("absent.png", "page.png", "empty.png", "folder.png", "drawing.eps"):
        with pytest.raises(UnreadableImage) as failure:
            reader(tmp_path / name)
        reasons[name] = failure.value.reason
    assert reasons == {
        "absent.png": "missing image",
        "page.png": "not an image",
        "empty.png": "not an image",
        "folder.png": "image that may not be opened",
        "drawing.eps": "not an image",
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 50_000])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    for reader in (images.read_size, images.read_rgb):
        with pytest.raises(UnreadableImage) as failure:
            reader(tmp_path / "bomb.png")
        assert failure.value.reason == "image too large to decode safely"


@pytest.mark.parametrize("kind", [b"IDAT", b"eXIf", b"zTXt"])
def test_a_chunk_that_calls_itself_larger_than_the_file_takes_no_memory(tmp_path, kind):
    sound = encoded(Image.fromarray(photo()), "PNG")
    place = sound.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(sound[:place] + struct.pack(">I", 2**31 - 1) + kind + sound[place + 8 :])
    tracemalloc.start()
    try:
        for reader in (images.read_size, images.is_stored_turned, images.read_rgb):
            with contextlib.suppress(UnreadableImage):
                reader(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_floating_point_pixels_have_no_defined_range(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UnreadableImage, match="colour range"):
        images.read_rgb(tmp_path / "a.tiff")


def test_unreadable_image_survives_pickling():
    failure = pickle.loads(pickle.dumps(UnreadableImage(Path("a.png"), "missing image")))
    assert (failure.path, failure.reason) == (Path("a.png"), "missing image")


def test_sizes_of_many_keep_the_order_and_hold_failures(tmp_path):
    paths = []
    for number in range(1, 101):
        paths.append(tmp_path / f"{number}.png")
        if number % 10:
            Image.new("L", (number, 7)).save(paths[-1])
    sizes = images.read_sizes(paths)
    for number, size in enumerate(sizes, start=1):
        if number % 10:
            assert size == (number, 7)
        else:
            assert isinstance(size, UnreadableImage)
            assert size.reason == "missing image"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), image_format=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
def test_damaged_bytes_give_a_picture_or_a_named_failure(tmp_path, data, image_format):
    content = bytearray(encoded(Image.fromarray(photo(24, 16)), image_format))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        found_HWC = images.read_rgb(path)
    except UnreadableImage:
        return
    assert found_HWC.dtype == np.uint8
    assert found_HWC.ndim == 3
    assert found_HWC.shape[2] == 3


def test_a_picture_that_leads_before_its_own_start_is_damaged(tmp_path):
    content = bytearray(encoded(Image.fromarray(photo(24, 16)), "TIFF"))
    content[72] = 6
    path = tmp_path / "damaged.tif"
    path.write_bytes(content[:140])
    with pytest.raises(UnreadableImage, match="truncated or damaged image"):
        images.read_rgb(path)


corner = st.floats(0, 29, allow_nan=False)
length = st.floats(1, 40, allow_nan=False)


@given(x1=corner, y1=corner, width=length, height=length)
def test_mask_is_zero_in_every_pixel_the_box_touches_and_nowhere_else(x1, y1, width, height):
    image_HWC = np.full((30, 40, 3), 9, np.uint8)
    box = (x1, y1, min(40.0, x1 + width), min(30.0, y1 + height))
    masked_HWC = images.mask_subject(image_HWC, box)
    for y in range(30):
        for x in range(40):
            touched = x + 1 > box[0] and x < box[2] and y + 1 > box[1] and y < box[3]
            assert masked_HWC[y, x].tolist() == [0 if touched else 9] * 3
    assert (image_HWC == 9).all()


def test_mask_of_a_box_that_leaves_the_picture_stays_inside_it():
    masked_HWC = images.mask_subject(np.ones((10, 10, 3), np.uint8), (-3.0, 7.5, 99.0, 12.0))
    assert masked_HWC[:7].all()
    assert not masked_HWC[7:].any()


def bilinear_at(image_HWC, x, y):
    """Value at a continuous position (pixel centres at .5), the border repeated."""
    height, width = image_HWC.shape[:2]
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    right_share, bottom_share = x - 0.5 - left, y - 0.5 - top
    value = 0.0
    for row, row_share in ((top, 1 - bottom_share), (top + 1, bottom_share)):
        for column, column_share in ((left, 1 - right_share), (left + 1, right_share)):
            pixel = image_HWC[min(max(row, 0), height - 1), min(max(column, 0), width - 1)].astype(float)
            value = value + row_share * column_share * pixel
    return value


@pytest.mark.parametrize("side", [24, 53, 80])
def test_body_crop_is_the_antialiased_square_around_the_box(side):
    """Against torch's antialiased interpolation of the same square, black outside the picture."""
    image_HWC = photo(60, 70, seed=3)
    box = (10.5, 30.5, 60.0, 80.5)  # 50 high: the square of 53 px starts at whole pixels, and leaves the picture
    box = (box[0], box[1], box[0] + 50, box[1] + 50)
    padded_HWC = np.zeros((120, 120, 3), np.float32)
    height, width = image_HWC.shape[:2]
    padded_HWC[:height, :width] = image_HWC
    square = torch.from_numpy(padded_HWC[29:82, 9:62]).permute(2, 0, 1)[None]
    expected = F.interpolate(square, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    crop_HWC = images.crop_square(image_HWC, box, side)
    inside = slice(2, -2)  # at the rim the filters reach beyond the square, or do not
    expected_HWC = expected[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(crop_HWC[inside, inside], expected_HWC[inside, inside], atol=1.6)


def test_body_crop_does_not_alias():
    board_HWC = np.zeros((1200, 1200, 3), np.uint8)
    board_HWC[(np.indices((1200, 1200)).sum(0) % 2).astype(bool)] = 255
    crop_HWC = images.crop_square(board_HWC, (100.0, 100.0, 1100.0, 1100.0), 224)
    assert crop_HWC.std() < 4


def test_resize_keeps_the_whole_picture():
    image_HWC = np.zeros((30, 90, 3), np.uint8)
    image_HWC[:, 45:] = 200
    small_HWC = images.resize(image_HWC, 10)
    assert small_HWC.shape == (10, 10, 3)
    assert (small_HWC[:, :4] == 0).all()
    assert (small_HWC[:, 6:] == 200).all()


@pytest.mark.parametrize(("resize_to", "crop"), [(256, 224), (37, 32), (38, 31), (20, 20)])
def test_resize_and_crop_is_the_transform_of_the_places_demo(resize_to, crop):
    image_HWC = photo(120, 70, seed=5)
    reference = transforms.Compose([transforms.Resize((resize_to, resize_to)), transforms.CenterCrop(crop)])
    expected_HWC = np.asarray(reference(Image.fromarray(image_HWC)))
    np.testing.assert_array_equal(images.resize_and_crop(image_HWC, resize_to, crop), expected_HWC)


def test_crop_larger_than_the_picture_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="larger"):
        images.resize_and_crop(photo(), 20, 21)
