"""Sound annotation files, pictures and videos in their real formats, and what reads them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from ccim_ray.datasets import emotic, emotic_annotations
from ccim_ray.datasets.caer_s import load_caer_s
from ccim_ray.datasets.confounded_scenes.loader import load_confounded_scenes
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.confounded_scenes.world import write_world
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.datasets.images import is_stored_turned, read_rgb, read_size
from ccim_ray.datasets.videos import decode_frames, read_header
from ccim_ray.new_pictures import read_boxes
from ccim_ray.persons import subjects_of

SIZE = (48, 40)
Made = tuple[tuple[bytes, ...], Any]


def picture(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """A small picture with detail in it."""
    target = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(target, kind, **options)
    return target.getvalue()


def links_out(folder: Path) -> None:
    """Symbolic links to the canary, as a file and as a folder."""
    up = "../" * (len(folder.parts) - len(folder.parts[: folder.parts.index("root")]))
    (folder / "out.png").symlink_to(f"{up}canary/secret.png")
    (folder / "away").symlink_to(f"{up}canary")


def emotic_folder(root: Path, compressed: bool) -> bytes:
    """EMOTIC with a picture a split; returns the annotation file."""
    from scipy.io import savemat

    content = {}
    for split in ("train", "val", "test"):
        person: dict[str, Any] = {"body_bbox": [5, 3, 24, 32], "annotations_categories": {"categories": "Fear"}}
        if split != "train":
            person["combined_categories"] = np.array(["Fear", "Pain"], object)
        size = {"n_col": SIZE[0], "n_row": SIZE[1]}
        content[split] = {"filename": f"{split}.png", "folder": "images", "image_size": size, "person": person}
        (root / "emotic/images").mkdir(parents=True, exist_ok=True)
        (root / f"emotic/images/{split}.png").write_bytes(picture())
    savemat(root / "Annotations.mat", content, do_compression=compressed)
    return (root / "Annotations.mat").read_bytes()


def _read_emotic(root: Path) -> None:
    # This process may die: none of its own is needed.
    with mock.patch.object(emotic, "read_annotations", emotic_annotations.parse_annotations):
        emotic.load_emotic(root)


def read_emotic_apart(root: Path, data: bytes) -> None:
    """As the product does."""
    (root / "Annotations.mat").write_bytes(data)
    emotic.load_emotic(root)


def emotic_mat(root: Path) -> Made:
    seeds = (emotic_folder(root, compressed=False), emotic_folder(root, compressed=True))
    links_out(root / "emotic")

    def read(data: bytes) -> None:
        (root / "Annotations.mat").write_bytes(data)
        _read_emotic(root)

    return seeds, read


def emotic_splits(root: Path) -> Made:
    emotic_folder(root, compressed=False)
    links_out(root / "emotic")

    def read(data: bytes) -> None:
        (root / "splits.csv").write_bytes(data)
        _read_emotic(root)

    return (b"image,split\nimages/train.png,train\nimages/val.png,val\nimages/test.png,test\n",), read


def caer_s_folder(root: Path) -> None:
    """CAER-S with a picture of each of two categories a part."""
    for part, folder in (("train", "Angry"), ("train", "Sad"), ("test", "Anger"), ("test", "Sad")):
        (root / "CAER-S" / part / folder).mkdir(parents=True)
        (root / "CAER-S" / part / folder / "0001.png").write_bytes(picture())
    (root / "body_boxes.csv").write_bytes(BODIES)
    links_out(root / "CAER-S")


BODIES = b"image,x1,y1,x2,y2\ntrain/Angry/0001.png,4,4,40,39\ntest/Sad/0001.png,1.5,2,30,30\n"


def _caer_s(root: Path, file: str, *seeds: bytes) -> Made:
    caer_s_folder(root)

    def read(data: bytes) -> None:
        (root / file).write_bytes(data)
        load_caer_s(root)

    return seeds, read


def caer_s_faces(root: Path) -> Made:
    return _caer_s(root, "train.txt", b"Angry/0001.png,0,5,5,20,20\ntrain/Sad/0001.png,5,1,2,30,31\n")


def caer_s_bodies(root: Path) -> Made:
    return _caer_s(root, "body_boxes.csv", BODIES)


def caer_s_splits(root: Path) -> Made:
    rows = b"image,split\ntrain/Angry/0001.png,train\ntest/Anger/0001.png,val\ntest/Sad/0001.png,test\n"
    return _caer_s(root, "splits.csv", rows, rows.replace(b"\n", b"\r\n"))


def groupwalk_manifest(root: Path) -> Made:
    (root / "frames").mkdir()
    lines = []
    for number, split in enumerate(("train", "train", "val", "test")):
        (root / f"frames/{number}.png").write_bytes(picture())
        line = {"sample_id": f"s{number}", "video_id": f"v{number}", "agent_id": "a", "frame_index": number}
        line |= {"image": f"frames/{number}.png", "bbox": [4, 4, 40, 39.5], "bbox_format": "xyxy_0based_halfopen"}
        line |= {"labels": ["Sad"], "split": split, "setting": "street", "box_source": "annotation"}
        lines.append(json.dumps(line))
    links_out(root)

    def read(data: bytes) -> None:
        (root / "manifest.jsonl").write_bytes(data)
        load_groupwalk(root)

    return ("\n".join(lines).encode(), lines[0].encode() + b"\n" + lines[2].encode()), read


def boxes(root: Path) -> Made:
    points = " ".join(["3 4"] * 17 + ["nan nan"])
    rows = (
        "image,x1,y1,x2,y2\na.png,1,2,30,31\na.png,5,5,20,20\nb.png,0,0,9,9\n",
        "image,x1,y1,x2,y2,face_x1,face_y1,face_x2,face_y2,keypoints,other_boxes,depth\n"
        f'a.png,1,2,30,31,3,3,9,9,{points},"[1, 2, 3, 4]",depth/a.png\n',
    )
    links_out(root)

    def read(data: bytes) -> None:
        (root / "boxes.csv").write_bytes(data)
        persons = read_boxes(root / "boxes.csv", root).persons
        subjects_of(persons, {person.image: SIZE for person in persons})

    return tuple(text.encode() for text in rows), read


def pictures(root: Path) -> Made:
    seeds = [picture(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")]
    seeds += [picture("TIFF", compression=of) for of in (None, "tiff_lzw", "tiff_deflate")]
    seeds += [picture("PNG", mode) for mode in ("L", "LA", "P", "1", "I;16", "RGBA")]
    seeds += [picture("JPEG", mode) for mode in ("L", "CMYK")]
    path = root / "picture"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_size(path)
        is_stored_turned(path)
        read_rgb(path)

    return tuple(seeds), read


def videos(root: Path) -> Made:
    import av

    made = []
    for suffix, codec in (("mp4", "mpeg4"), ("avi", "mjpeg"), ("mkv", "mpeg4")):
        path = root / f"sound.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=5)
            stream.width, stream.height = SIZE
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(4):
                frame = np.full((SIZE[1], SIZE[0], 3), 40 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        made.append(path.read_bytes())
    path = root / "video.mp4"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_header(path)
        for _ in decode_frames(path, {0, 3}):
            pass

    return tuple(made), read


def _world(root: Path, file: str) -> Made:
    write_world(WorldSettings(images=50, image_size=64), root)

    def read(data: bytes) -> None:
        (root / file).write_bytes(data)
        load_confounded_scenes(root)

    return ((root / file).read_bytes(),), read


def world_settings(root: Path) -> Made:
    return _world(root, "world.json")


def world_truth(root: Path) -> Made:
    return _world(root, "truth.parquet")
