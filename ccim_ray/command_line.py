"""The flags that jobs share, and how a job ends: 0 all done, 1 some trial failed, 2 wrong request or data."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeVar

import tyro

from ccim_ray.errors import RequestError
from ccim_ray.layout import home, is_installed

if TYPE_CHECKING:
    from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
    from ccim_ray.datasets.dataset import LoadOptions
    from ccim_ray.experiment import Experiment
    from ccim_ray.presets import Preset
    from ccim_ray.storage import Storage

Flags = TypeVar("Flags")

_OF_THE_PRESET = "(default: the preset's)"
Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_OF_THE_PRESET)]
_Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: by resources)")]
_Resource = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: by resources)")]
Integers = Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]", help_behavior_hint=_OF_THE_PRESET)]
_Text = Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")]
_Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class WorldFlags:
    """What is chosen about the embedded world."""

    like: str = "caer_s"
    """Form of the embedded world: caer_s (7 categories), emotic (26, several at once) or groupwalk (4)."""
    images: Count = None
    """Pictures of the embedded world over all splits."""
    bias: float = 0.8
    """Bias of the embedded world, 0 to 1: share of a scene's emotions that the scene prefers."""
    ambiguity: float = 0.5
    """Share of the embedded world's subjects, 0 to 1, whose face and posture do not settle the emotion."""

    def world_settings(self, default_images: int, seed: int = 0) -> WorldSettings:
        """Raises RequestError for values out of range."""
        from pydantic import ValidationError

        from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
        from ccim_ray.experiment import describe

        values = {
            "like": self.like,
            "images": default_images if self.images is None else self.images,
            "bias": self.bias,
            "ambiguity": self.ambiguity,
            "seed": seed,
        }
        try:
            return WorldSettings.model_validate(values)
        except ValidationError as error:
            raise RequestError(f"--{describe(error)}") from error


@dataclass(frozen=True, kw_only=True)
class CommonFlags(WorldFlags):
    """Flags of every job."""

    dataset: str = "confounded_scenes"
    """confounded_scenes (the embedded world), emotic, caer_s or groupwalk (a manifest of videos or frames; format
    unverified)."""
    data_root: _Folder = None
    """Folder of the downloaded dataset; the embedded world needs none."""
    split_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Your own split: a CSV file with the header image,split. Default: splits.csv in the data root, else the dataset's
    own split."""
    keep_overlap: bool = False
    """Keep EMOTIC's images that are in train and also in val; without it they are left out of train."""
    frame_step: int = 1
    """Use every so-many-th annotated frame of each agent of GroupWalk, from its first."""
    detector: _Text = None
    """Finds the persons of CAER-S that have no box in body_boxes.csv: fasterrcnn_resnet50_fpn (the default there),
    fasterrcnn_mobilenet_v3_large_320_fpn (fast, for laptops), keypointrcnn_resnet50_fpn (poses too), or none, which
    takes the annotated face grown to a body."""
    storage: _Text = None
    """Folder for everything a run leaves behind, or s3://BUCKET/PREFIX to keep it in a bucket. Default:
    CCIM_RAY_STORAGE, else ./runs, or ~/ccim_ray_runs where the job was submitted to a cluster, whose working folder is
    thrown away."""
    tracking_uri: _Text = None
    """MLflow tracking server or database. Default: MLFLOW_TRACKING_URI, else SQLite under the storage."""
    preset: _Text = None
    """smoke (seconds), quick (minutes) or paper (the paper's settings). Default: quick on the embedded world, else
    paper."""
    plan: bool = False
    """Print what is cached, done, failed and still to run, with estimated time and disk, and start nothing."""

    @property
    def preset_name(self) -> str:
        """The preset, by the dataset where none was named."""
        return self.preset or ("quick" if self.dataset == "confounded_scenes" else "paper")

    def load_options(self) -> LoadOptions:
        """How the dataset is read. Raises RequestError for an option that the dataset does not have."""
        from ccim_ray.datasets.dataset import LoadOptions

        if self.split_file and self.dataset in ("confounded_scenes", "groupwalk"):
            raise RequestError(f"--split-file: the split of {self.dataset} stands in its own files; leave the flag out")
        if self.keep_overlap and self.dataset != "emotic":
            raise RequestError(f"--keep-overlap: {self.dataset} has no overlap of train and val; leave the flag out")
        if self.frame_step != 1 and self.dataset != "groupwalk":
            raise RequestError(f"--frame-step: {self.dataset} has no agents followed over frames; leave the flag out")
        if self.frame_step < 1:
            raise RequestError(f"--frame-step {self.frame_step}: give a whole number from 1")
        split_file = self.split_file.expanduser().absolute() if self.split_file else None
        return LoadOptions(
            split_file=split_file,
            drop_overlap=not self.keep_overlap,
            detector=self._chosen_detector(),
            frame_step=self.frame_step,
        )

    def _chosen_detector(self) -> str | None:
        from ccim_ray.perception.weight_files import DEFAULT_DETECTOR, DETECTOR_FILES

        if self.detector is None:
            return DEFAULT_DETECTOR if self.dataset == "caer_s" else None
        if self.detector == "none":
            return None
        if self.detector not in DETECTOR_FILES:
            known = ", ".join((*DETECTOR_FILES, "none"))
            raise RequestError(f"--detector {self.detector}: there is no such detector; choose one of {known}")
        if self.dataset != "caer_s":
            raise RequestError(f"--detector: {self.dataset} annotates a box for every person; leave the flag out")
        return self.detector

    def chosen_preset(self) -> Preset:
        """Raises RequestError for an unknown preset."""
        from ccim_ray.presets import preset

        return preset(self.preset_name)

    def world(self) -> WorldSettings | None:
        """Settings of the embedded world; None for a real dataset. Raises RequestError for values out of range."""
        if self.dataset != "confounded_scenes":
            return None
        if self.data_root:
            raise RequestError(f"--data-root {self.data_root}: name its --dataset; the embedded world has no folder")
        return self.world_settings(self.chosen_preset().world_images)

    def open_storage(self) -> Storage:
        """The storage folder, created unless only a plan is wanted. Raises RequestError where it cannot be written."""
        from ccim_ray.storage import Storage

        location = self.storage or os.environ.get("CCIM_RAY_STORAGE") or default_storage()
        return Storage.open(location, write=not self.plan)


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(CommonFlags):
    """Flags of jobs that train."""

    baseline: str = "emot_net"
    """The model that CCIM is plugged into: emot_net, gcn_cnn, caer_net, emoticon, or one of another package."""
    baseline_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...", help_behavior_hint="")] = ()
    """Options of the baseline, such as sociodynamic=agents of emoticon; a wrong name lists those that it has."""
    stand_ins: bool = False
    """Take the embedded world's own pre-training in place of Places365 and ImageNet: for folders that
    make_confounded_scenes.py wrote. The embedded world itself always does."""
    pose_detector: _Text = None
    """Finds the keypoints and faces that a real dataset lacks and a baseline reads: keypointrcnn_resnet50_fpn, or none:
    keypoints are then unknown, and a face is the upper third of the body. Default: keypointrcnn_resnet50_fpn where
    keypoints are read, or faces of a dataset that annotates none."""
    depth_model: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Makes the depth pictures that emoticon reads: TorchScript (.pt) or an exported program (.pt2), from (1, 3, S, S)
    float32 normalised as for ImageNet to (1, S', S'), larger for nearer; S as exported, else 384. It is run as code:
    take one that you trust. Default: depth/IMAGE.png in the data root, where every image has one."""
    trainable: _Text = None
    """head (frozen trunks on features extracted once) or all (end to end). Default: head; all in preset paper on
    real datasets."""
    seeds: Integers = None
    """Seeds of initialisation, order and dropout; each is a trial of every setting."""
    epochs: Count = None
    """Passes over the train split."""
    batch_size: Count = None
    """Subjects in a batch, over all workers of a trial."""
    patience: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Stop a trial after this many epochs without a better validation metric. Without it all epochs are trained."""
    workers_per_trial: int = 1
    """DDP processes of one trial; above 1 needs --trainable all."""
    precision: str = "auto"
    """float32, tf32 (float32 whose matrix products and convolutions a GPU may round to TF32; its gain and its loss of
    accuracy are unmeasured), bfloat16 (autocast; CCIM stays in float32) or auto (bfloat16 on GPUs)."""
    channels_last: tyro.conf.FlagConversionOff[bool] = True
    """Memory order of pictures end to end; True is the faster, numbers differ in the last digits."""
    compile: bool = False
    """torch.compile of the model: worth its minutes in long trainings; numbers differ in the last digits."""
    gpus_per_worker: _Number = None
    """GPUs of each process, may be a fraction."""
    max_concurrent: _Resource = None
    """Trials at a time."""
    price_per_hour: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """With --plan: what an hour of one GPU costs where trials take GPUs, else of one CPU, in any currency."""
    quiet: bool = False
    """Print the tables and what went wrong, and nothing else."""
    log: Literal["text", "json"] = "text"
    """json: one JSON object a line on stdout, for programs; docs/progress.md says what is in them."""

    def _trainable(self) -> str | None:
        if self.trainable not in (None, "head", "all"):
            raise RequestError(f"--trainable {self.trainable}: choose head or all")
        return self.trainable

    def experiment(self) -> Experiment:
        """The base experiment. Raises RequestError for values that are not valid."""
        from ccim_ray.presets import default_experiment

        base = default_experiment(
            self.dataset,
            self.preset_name,
            self.world(),
            self.baseline,
            self._trainable(),
            options=_options(self.baseline_options),
            stand_ins=self.stand_ins,
            has_depth=self._has_depth(),
        )
        changes = {
            "precision": self.precision,
            "channels_last": self.channels_last,
            "compile": self.compile,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "patience": self.patience,
            "workers": self.workers_per_trial,
        }
        try:
            return base.with_changes(**{name: value for name, value in changes.items() if value is not None})
        except RequestError as error:
            name, separator, rest = str(error).partition(": ")
            raise RequestError(
                f"--{name.replace('_', '-')}{separator}{rest}" if name in changes else str(error)
            ) from error

    def experiments(self) -> tuple[Experiment, ...]:
        """One base experiment for each baseline that is asked for. Raises RequestError as ``experiment``."""
        return (self.experiment(),)

    def load_options(self) -> LoadOptions:
        """As of every job, and what derives the inputs that the dataset lacks. Raises RequestError as there."""
        from ccim_ray.derived_inputs import choose_depth_model, choose_pose_detector
        from ccim_ray.plan import views_read

        views = views_read(self.experiments())
        return replace(
            super().load_options(),
            pose_detector=choose_pose_detector(self.pose_detector, self.dataset, views),
            depth_model=choose_depth_model(self.depth_model, self.dataset, views),
        )

    def _has_depth(self) -> bool:
        """Whether there is, or can be made, a depth picture of every image, as far as the baseline could read it."""
        from ccim_ray.baselines.registry import baseline_card
        from ccim_ray.datasets.depth import DEPTH_FOLDER
        from ccim_ray.derived_inputs import every_image_has_depth

        if self.depth_model or "depth" not in baseline_card(self.baseline).optional_views:
            return self.depth_model is not None
        if not self.data_root or not (self.data_root / DEPTH_FOLDER).is_dir():
            return False
        return every_image_has_depth(self.dataset, self.data_root.expanduser().absolute(), super().load_options())


def _options(written: tuple[str, ...]) -> dict[str, bool | int | float | str]:
    """NAME=VALUE pairs; true, false and numbers are read as such. RequestError for what is no pair."""
    options: dict[str, bool | int | float | str] = {}
    for pair in written:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise RequestError(f"--baseline-options {pair}: write NAME=VALUE")
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            read = value
        options[name] = read if isinstance(read, bool | int | float) else value
    return options


def some(flag: str, values: tuple[int, ...] | None, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """The values given, each once, else those of the preset. RequestError where the flag was given none."""
    if values == ():
        raise RequestError(f"{flag} needs at least one number")
    return tuple(dict.fromkeys(values or otherwise))


def parse(flags: type[Flags], description: str) -> Flags:
    """Read the command line. ``--help`` explains every flag; a mistake is one line on stderr and exit status 2."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            read = tyro.cli(flags, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as end:
        if end.code == 2:
            fail(_first_paragraph(complaint.getvalue()) + "; --help lists the flags")
        raise
    if isinstance(read, TrainingFlags):
        from ccim_ray.console import choose_output

        choose_output(read.quiet, read.log)
    return read


def run(job: Callable[[], int]) -> None:
    """Run a job and exit with its status; a RequestError becomes one line on stderr and status 2."""
    from ccim_ray.console import event

    try:
        status = job()
    except RequestError as error:
        event("error", text=str(error))
        event("end", status=2)
        fail(str(error))
    except KeyboardInterrupt:
        status = 130
        print(f"interrupted: the same command goes on from here: {typed_command(sys.argv)}", file=sys.stderr)
    except SystemExit as left:  # by SIGTERM
        event("end", status=left.code)
        raise
    event("end", status=status)
    sys.stdout.flush()
    raise SystemExit(status)


def typed_command(argv: Sequence[str]) -> str:
    """What is typed to run the job in ``argv``: by name where it is installed, by its file in a checkout."""
    job = Path(argv[0]).absolute()
    by_name = is_installed() and job.parent == home() / "jobs"
    return shlex.join(["python", *(["-m", "ccim_ray", job.stem] if by_name else [argv[0]]), *argv[1:]])


def fail(message: str) -> NoReturn:
    """One line on stderr, exit status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _first_paragraph(box: str) -> str:
    """The complaint itself, out of the frame that tyro draws around it."""
    lines = [line.strip("│ ").strip() for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    text = " ".join(lines)
    return re.split(r"─{4,}|Got errors:", text)[0].strip().rstrip(".")


def default_storage() -> str:
    """Where results go unless told otherwise: a submitted job's working folder is a copy that is deleted later."""
    submitted = "runtime_resources" in Path.cwd().parts
    return "~/ccim_ray_runs" if submitted else "runs"
