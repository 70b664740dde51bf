"""Places365 is published for several frameworks: a file of another one is told from a damaged download."""

import pytest

from ccim_ray.errors import RequestError
from ccim_ray.perception.imported_weights import import_weights


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("resnet152_places365.caffemodel", "Caffe"),
        ("resnet152_places365.t7", "Torch7"),
        ("vgg16_places365.h5", "Keras"),
    ],
)
def test_a_file_of_another_framework_is_told(tmp_path, name, framework):
    (tmp_path / name).write_bytes(b"\n\x0aResNet-152" * 100)
    with pytest.raises(RequestError, match=rf"{name} .* it is a file of {framework}; take the one for PyTorch$"):
        import_weights(tmp_path / name, "resnet152", "places365", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
