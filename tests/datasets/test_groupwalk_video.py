"""GroupWalk read from video files: which frames are needed, what is wrong with files, and how agents are sampled."""

import json
import subprocess
import sys
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image

from ccim_ray.datasets.dataset import Defects, LoadOptions
from ccim_ray.datasets.groupwalk import load_groupwalk
from ccim_ray.datasets.video_frames import LOST_FRAMES_FILE, count_lost, needed_frames, open_frames, write_frames
from ccim_ray.datasets.videos import UnreadableVideo, decode_frames, read_header
from ccim_ray.errors import RequestError

WIDTH, HEIGHT, FRAMES = 96, 64, 24


def write_video(path, codec="libx264", frames=FRAMES, **container_options):
    """Frame n is of grey 10 n; noise in a corner keeps packets large enough to be damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=10, options={"threads": "1"})  # as many cores, as many encodings
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            picture_HWC = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
            picture_HWC[:, :32] = noise.integers(0, 255, (HEIGHT, 32, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode())
    return path


def sample(video, agent, frame, split="train", **changes):
    return {
        "sample_id": f"{video}/{agent}/{frame}",
        "video_id": video,
        "agent_id": agent,
        "frame_index": frame,
        "image": None,
        "video_file": f"videos/{video}.mp4",
        "bbox": [40, 8, 60, 60],
        "bbox_format": "xyxy_0based_halfopen",
        "labels": ["Happy"],
        "split": split,
        "setting": None,
        "box_source": "annotation",
        **changes,
    }


def write_manifest(root, samples):
    (root / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in samples))
    return root


def one_of_each():
    return [sample("a", "p", 3), sample("a", "p", 9), sample("b", "p", 0, "val"), sample("c", "p", 23, "test")]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("encoded") / "v.mp4", movflags="faststart").read_bytes()


@pytest.fixture
def root(tmp_path, encoded):
    """Three sound videos with an agent in each."""
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    for name in "abc":
        (root / f"videos/{name}.mp4").write_bytes(encoded)
    return write_manifest(root, one_of_each())


def grey(picture_HWC):
    return int(np.asarray(picture_HWC)[:, 48:].mean())


def decode_all(dataset, frames):
    for task in open_frames(dataset, frames):
        write_frames(dataset.root / task.video, frames / task.folder, task.numbers)


@pytest.mark.parametrize(
    ("name", "codec"), [("v.mp4", "libx264"), ("v.mp4", "mpeg4"), ("v.mkv", "libx264"), ("v.avi", "mpeg4")]
)
def test_frames_are_those_of_their_numbers(tmp_path, name, codec):
    path = write_video(tmp_path / name, codec)
    header = read_header(path)
    assert (header.width, header.height) == (WIDTH, HEIGHT)
    assert header.frames in (FRAMES, None)
    wanted = {0, 1, 11, 23, 24, 90}
    found = dict(decode_frames(path, wanted))
    assert list(found) == [0, 1, 11, 23]
    for number, picture_HWC in found.items():
        assert picture_HWC.shape == (HEIGHT, WIDTH, 3)
        assert grey(picture_HWC) == pytest.approx(10 * number, abs=4)


def test_subjects_have_frames_without_decoding(root):
    dataset = load_groupwalk(root)
    assert dataset.defects.counts == {}
    assert dataset.note == "format unverified"
    assert dataset.splits == ("train", "val", "test")
    subject = dataset.subjects[1]
    assert (subject.width, subject.height, subject.frame, subject.agent) == (WIDTH, HEIGHT, 9, "a/p")
    assert subject.image.startswith("videos/a.mp4/")
    assert subject.image.endswith("/000009.jpg")
    assert {needed.video: needed.numbers for needed in needed_frames(dataset)} == {
        "videos/a.mp4": (3, 9),
        "videos/b.mp4": (0,),
        "videos/c.mp4": (23,),
    }


def test_what_is_decoded_changes_no_fingerprint_and_another_video_does(root, tmp_path):
    dataset = load_groupwalk(root)
    before = dataset.fingerprint
    decode_all(dataset, tmp_path / "frames")
    assert load_groupwalk(root).fingerprint == before
    write_video(root / "videos/a.mp4", "mpeg4")
    again = load_groupwalk(root)
    assert again.fingerprint != before
    assert [task.video for task in open_frames(again, tmp_path / "frames")] == ["videos/a.mp4"]


def test_frames_lie_where_subjects_look_for_them(root, tmp_path):
    dataset, frames = load_groupwalk(root), tmp_path / "frames"
    decode_all(dataset, frames)
    for subject in dataset.subjects:
        with Image.open(frames / subject.image) as picture:
            assert picture.size == (subject.width, subject.height)
            assert grey(picture) == pytest.approx(10 * subject.frame, abs=4)
    assert len(list(frames.rglob("*.*"))) == 4 + 3  # the frames, and folders named after their videos
    assert open_frames(dataset, frames) == []


def test_a_video_that_is_no_video_is_counted_and_the_others_are_used(root):
    (root / "videos/d.mp4").write_text("no video")
    (root / "videos/e.mp4").write_bytes((root / "videos/a.mp4").read_bytes()[:300])
    samples = [sample(name, agent, 0) for name in "def" for agent in ("p", "q")]
    dataset = load_groupwalk(write_manifest(root, one_of_each() + samples))
    assert dataset.defects.counts == {"video that cannot be decoded": 2, "missing video": 1}
    assert dataset.defects.examples["missing video"] == ["videos/f.mp4"]
    assert {subject.video for subject in dataset.subjects} == {"a", "b", "c"}


def test_a_playlist_that_calls_itself_a_video_opens_nothing(root):
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{root}/videos/a.mp4\n#EXT-X-ENDLIST\n"
    (root / "videos/d.m3u8").write_text(text)
    with av.open(str(root / "videos/d.m3u8"), options={"allowed_extensions": "ALL"}) as container:
        assert container.format.name == "hls"  # what FFmpeg would do with it unasked
    with pytest.raises(UnreadableVideo):
        read_header(root / "videos/d.m3u8")


def test_a_frame_beyond_the_end_is_counted_by_itself(root):
    beyond = [sample("a", agent, frame) for frame in (24, 90) for agent in ("p", "q")]
    dataset = load_groupwalk(write_manifest(root, one_of_each() + beyond))
    assert dataset.defects.counts == {"frame beyond the end of the video": 2}
    assert dataset.defects.examples["frame beyond the end of the video"][0] == "videos/a.mp4 frame 24"
    assert len(dataset.subjects) == 4


def test_an_end_that_no_header_tells_is_found_while_decoding(root, tmp_path):
    write_video(root / "videos/d.mkv")
    samples = [sample("d", "p", frame, video_file="videos/d.mkv") for frame in (2, 24, 25)]
    dataset = load_groupwalk(write_manifest(root, one_of_each() + samples))
    assert len(dataset.subjects) == 7
    decode_all(dataset, tmp_path)
    defects = Defects()
    assert count_lost(dataset, tmp_path, defects) == 5
    assert defects.counts == {"frame beyond the end of the video": 2}
    assert defects.examples["frame beyond the end of the video"] == ["videos/d.mkv frame 24", "videos/d.mkv frame 25"]
    assert open_frames(dataset, tmp_path) == []


def packet_starts(path):
    with av.open(str(path)) as container:
        return [packet.pos for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_damaged_video_gives_its_sound_frames_and_no_wrong_one(root, tmp_path, encoded, damage):
    middle = packet_starts(root / "videos/a.mp4")[FRAMES // 2]  # the length of a picture's data is written there
    rest = encoded[middle : middle + 100] if damage == "truncated" else b"\x55" * 300 + encoded[middle + 300 :]
    whole = encoded[:middle] + rest
    (root / "videos/a.mp4").write_bytes(whole)
    dataset = load_groupwalk(write_manifest(root, [*one_of_each(), *(sample("a", "q", n) for n in range(FRAMES))]))
    decode_all(dataset, tmp_path)
    defects = Defects()
    there = count_lost(dataset, tmp_path, defects)
    assert 2 + 3 < there < 2 + FRAMES
    assert defects.counts == {"video that cannot be decoded": 1}
    assert defects.examples["video that cannot be decoded"] == [f"videos/a.mp4 from frame {there - 2} on"]
    for path in tmp_path.glob("videos/a.mp4/*/*.jpg"):
        with Image.open(path) as picture:
            assert grey(picture) == pytest.approx(10 * int(path.stem), abs=4)


def test_no_picture_is_guessed_before_damage_is_noticed(tmp_path, encoded):
    path = tmp_path / "v.mp4"
    path.write_bytes(encoded)
    sound = dict(decode_frames(path, range(FRAMES)))
    noticed = 0
    for place in range(packet_starts(path)[0], len(encoded), 211):
        path.write_bytes(encoded[:place] + bytes([encoded[place] ^ 0x55]) + encoded[place + 1 :])
        right = []
        try:
            for number, picture_HWC in decode_frames(path, range(FRAMES)):
                right.append(np.array_equal(picture_HWC, sound[number]))
        except UnreadableVideo:
            noticed += 1
            assert all(right)
    assert noticed > 20


def test_only_what_lacks_is_decoded_again(root, tmp_path):
    dataset = load_groupwalk(root)
    decode_all(dataset, tmp_path)
    (removed,) = tmp_path.glob("videos/a.mp4/*/000009.jpg")
    removed.unlink()
    (task,) = open_frames(dataset, tmp_path)
    assert (task.video, task.numbers) == ("videos/a.mp4", (9,))
    more = load_groupwalk(write_manifest(root, [*one_of_each(), sample("c", "p", 5, "test")]))
    assert [task.numbers for task in open_frames(more, tmp_path)] == [(9,), (5,)]


def test_a_damaged_list_of_lost_frames_is_named(root, tmp_path):
    dataset = load_groupwalk(root)
    folder = tmp_path / needed_frames(dataset)[0].folder
    folder.mkdir(parents=True)
    (folder / LOST_FRAMES_FILE).write_text("{")
    with pytest.raises(RequestError, match=f"{LOST_FRAMES_FILE} is missing or damaged"):
        open_frames(dataset, tmp_path)


@pytest.mark.parametrize("step", [1, 2, 3, 50])
def test_every_so_many_annotated_frames_of_each_agent_are_used(root, step):
    seen = {"p": [0, 2, 4, 6, 8], "q": [4, 5, 6]}
    lines = [sample("a", agent, frame) for agent, frames in seen.items() for frame in frames[::-1]]
    samples = [*lines, sample("a", "r", 4, labels=[]), *one_of_each()[2:]]
    dataset = load_groupwalk(write_manifest(root, samples), LoadOptions(frame_step=step))
    used = {agent: sorted(s.frame for s in dataset.subjects if s.agent == f"a/{agent}") for agent in seen}
    assert used == {agent: frames[::step] for agent, frames in seen.items()}
    # Who stands beside somebody stays there, whether used or not.
    beside = {s.subject_id: len(s.other_boxes) for s in dataset.subjects}
    assert beside["a/q/4"] == 2
    assert dataset.defects.counts == {"agent without labels": 1}


def test_labels_that_differ_between_the_frames_of_an_agent_are_counted(root):
    samples = [*one_of_each(), sample("a", "p", 10, labels=["Sad"]), sample("a", "p", 11, labels=["Sad"])]
    dataset = load_groupwalk(write_manifest(root, samples))
    (kind,) = dataset.defects.counts
    assert kind.startswith("agent whose labels differ between frames: united")
    assert dataset.defects.examples[kind] == ["a/p"]


@pytest.mark.parametrize("written", ["train", None, "left out"])
@pytest.mark.parametrize(("videos", "test", "val"), [(20, 3, 2), (3, 1, 1)])
def test_a_manifest_of_train_alone_is_split_by_video(tmp_path, encoded, written, videos, test, val):
    (tmp_path / "videos").mkdir()
    samples = [sample(f"v{n:02d}", "p", frame, written) for n in range(videos) for frame in (0, 1)]
    for line in samples:
        (tmp_path / line["video_file"]).write_bytes(encoded)
        if written == "left out":
            del line["split"]
    dataset = load_groupwalk(write_manifest(tmp_path, samples))
    split_of = {subject.video: subject.split for subject in dataset.subjects}
    assert all(split_of[subject.video] == subject.split for subject in dataset.subjects)
    assert Counter(split_of.values()) == {"train": videos - test - val, "val": val, "test": test}
    assert {kind.split(":")[0]: count for kind, count in dataset.defects.counts.items()} == {
        "video drawn from train for test": test,
        "video drawn from train for val": val,
    }
    again = load_groupwalk(write_manifest(tmp_path, samples[::-1]))
    assert {subject.video: subject.split for subject in again.subjects} == split_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "a.jpg"}, "line 5: fields 'image' and 'video_file' are both given"),
        ({"video_file": None}, "line 5: field 'image' is null"),
        ({"video_file": "../a.mp4"}, "line 5: field 'video_file': path '../a.mp4' leaves the data root"),
        ({"video_file": 7}, "line 5: field 'video_file' is 7"),
        ({"image": "a.jpg", "video_file": None}, "line 5: names an image, unlike .* line 1"),
        ({"video_file": "videos/b.mp4"}, "line 5: videos/b.mp4 is of video 'a', and of 'b' in .* line 3"),
        ({"video_file": "videos/d.mp4"}, "line 5: video 'a' is in videos/d.mp4, and in videos/a.mp4"),
        ({"split": None, "video_id": "d", "video_file": "d.mp4"}, "line 5: field 'split' is missing, and other lines"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(root, changes, message):
    write_manifest(root, [*one_of_each(), sample("a", "q", 5) | changes])
    with pytest.raises(RequestError, match=message) as failure:
        load_groupwalk(root)
    assert "\n" not in str(failure.value)


def test_a_video_behind_a_link_out_of_the_root_is_refused(root, tmp_path):
    (root / "videos/a.mp4").rename(tmp_path / "elsewhere.mp4")
    (root / "videos/a.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(RequestError, match=r"a\.mp4 is a symbolic link out of "):
        load_groupwalk(root)


def test_without_any_video_the_defects_are_told(root):
    for name in "abc":
        (root / f"videos/{name}.mp4").write_text("no video")
    with pytest.raises(RequestError, match=r"no usable subject on its 4 lines \(3 x video that cannot be decoded\)"):
        load_groupwalk(root)


MEMORY_OF_FRAMES = """
import re, sys
from pathlib import Path
from ccim_ray.datasets.video_frames import write_frames
for count in (20, 100):  # the first brings the decoder's own buffers
    write_frames(Path(sys.argv[1]), Path(sys.argv[2]) / str(count), range(count))
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of a process's memory")
def test_frames_are_written_one_by_one_and_never_all_in_memory(tmp_path):
    """A hundred frames take no more memory than twenty: eighty more of them would be 74 MB."""
    with av.open(str(tmp_path / "long.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for number in range(100):
            picture_HWC = np.full((480, 640, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode())
    command = [sys.executable, "-c", MEMORY_OF_FRAMES, str(tmp_path / "long.mp4"), str(tmp_path / "frames")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    few, many = (int(kibibytes) for kibibytes in ended.stdout.split())
    assert len(list((tmp_path / "frames/100").iterdir())) == 100
    assert many - few < 20_000
