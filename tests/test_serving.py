"""What a person's row tells beside picture and box reaches the logged model."""

import numpy as np
import pandas as pd
import pytest
from untrained_model import write_untrained

from ccim_ray.datasets.registry import load_dataset
from ccim_ray.errors import RequestError
from ccim_ray.persons import write_person
from ccim_ray.serving import ServedModel
from ccim_ray.trained_model import load_trained


@pytest.fixture
def emoticon(small_world, tmp_path):
    """An untrained EmotiCon that reads depth, and subjects of the embedded world, who have all that it reads."""
    write_untrained(tmp_path, "emoticon")
    return tmp_path, load_dataset("confounded_scenes", small_world)


def test_faces_keypoints_others_and_depth_reach_the_model_through_the_columns(emoticon):
    folder, dataset = emoticon
    subjects = dataset.subjects[:6]
    expected_SK, reasons = load_trained(folder, root=dataset.root).score(subjects)
    assert reasons == [None] * 6
    asked = pd.DataFrame([write_person(subject, dataset.root) for subject in subjects])
    served = ServedModel(load_trained(folder))
    np.testing.assert_array_equal(served.predict(asked).to_numpy(), expected_SK)
    for columns in (["face_x1", "face_y1", "face_x2", "face_y2"], ["keypoints"], ["depth"]):
        changed = asked.copy()
        changed[columns] = asked[columns].to_numpy()[::-1]
        assert not np.allclose(served.predict(changed).to_numpy(), expected_SK), columns
    for column in ("keypoints", "depth"):
        with pytest.raises(RequestError, match=f"this model reads {column}, and the input has no such column"):
            served.predict(asked.drop(columns=column))
    with pytest.raises(RequestError, match="images without a depth picture"):
        served.predict(asked.assign(depth=None))
