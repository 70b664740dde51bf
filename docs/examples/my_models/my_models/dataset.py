"""My dataset: pictures, and beside them people.csv with one person a line."""

from pathlib import Path

from ccim_ray.datasets.annotation_files import digest_files, parse_box, read_rows, relative_path
from ccim_ray.datasets.dataset import Dataset, Defects, LoadOptions
from ccim_ray.datasets.images import UnreadableImage, read_size
from ccim_ray.datasets.registry import DatasetCard
from ccim_ray.datasets.subject import Subject, clip_box
from ccim_ray.errors import RequestError

CATEGORIES = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")


def load(root: Path, options: LoadOptions) -> Dataset:
    root = root.resolve()
    path = root / "people.csv"
    if options.split_file:
        raise RequestError("--split-file: the split of my_dataset stands in people.csv; leave the flag out")
    subjects, defects = [], Defects()
    for where, (image, x1, y1, x2, y2, label, split) in read_rows(
        path, ("image", "x1", "y1", "x2", "y2", "label", "split")
    ):
        image = relative_path(image, where)
        try:
            width, height = read_size(root / image)
        except UnreadableImage as failure:
            defects.add(failure.reason, image, split)
            continue
        box = clip_box(parse_box((x1, y1, x2, y2), where), width, height)
        if box is None:
            defects.add("box that holds no pixel of its image", where, split)
            continue
        subject = Subject(
            subject_id=f"{image} {x1},{y1},{x2},{y2}",
            image=image,
            width=width,
            height=height,
            split=split,
            body_box=box,
            box_source="annotation",
            labels=(label,),
        )
        subjects.append(subject)
    return Dataset(
        name="my_dataset",
        root=root,
        categories=CATEGORIES,
        multi_label=False,
        subjects=tuple(subjects),
        defects=defects,
        annotation_digest=digest_files(root, [path]),
    )


MY_DATASET = DatasetCard(name="my_dataset", load=load, multi_label=False, dictionary_size=128)
