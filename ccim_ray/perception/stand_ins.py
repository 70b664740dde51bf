"""Training of the stand-ins: small networks that know the embedded world as Places365 and ImageNet know ours.

Every picture is drawn without confounding: scenes are uniform and independent of emotions and objects.
Shape suffixes: N pictures, B batch, S side, C colour channels, D dimensions of an expression, K outputs.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from ccim_ray.datasets.confounded_scenes.causal_model import CausalModel, Scenario
from ccim_ray.datasets.confounded_scenes.objects import OBJECT_NAMES
from ccim_ray.datasets.confounded_scenes.render import render, render_object
from ccim_ray.datasets.confounded_scenes.scenes import SCENE_NAMES
from ccim_ray.datasets.confounded_scenes.settings import WorldSettings
from ccim_ray.datasets.images import crop_square
from ccim_ray.errors import RequestError
from ccim_ray.perception.architectures import architecture
from ccim_ray.perception.backbones import Backbone, ThinResNet
from ccim_ray.perception.weight_files import STAND_IN_OUTPUTS
from ccim_ray.storage import atomic_path

ARCH = "thin_resnet"
FEWEST_PICTURES = 100
HELD_OUT_SHARE = 0.125
BATCH_SIZE = 96
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """How long a stand-in learns, and from how many pictures; None takes all that are not held out."""

    epochs: int
    pictures: int | None = None


# The painted scenes are easy: after one epoch of all pictures the network knows every held-out one. It is
# given less, since one that never errs would flatter each method that needs to know the scene.
RECIPES = {"scenes": Recipe(2, pictures=2000), "objects": Recipe(6), "bodies": Recipe(10)}


@dataclass(frozen=True)
class PretrainingPictures:
    """Pictures of one network input's size, with what each network learns from them.

    Attributes:
        contexts, bodies, objects: (N, S, S, 3) uint8.
        scene_N, object_N: int64 indices into SCENE_NAMES and OBJECT_NAMES.
        expression_ND: expression of the subject, standardised over the N pictures, float32.
        face_visible_N: bool.
    """

    contexts: Pictures
    bodies: Pictures
    objects: Pictures
    scene_N: npt.NDArray[np.int64]
    object_N: npt.NDArray[np.int64]
    expression_ND: npt.NDArray[np.float32]
    face_visible_N: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class StandIn:
    """A trained network and how good it is.

    Attributes:
        state: float16 parameters under ThinResNet's names.
        held_out_score: accuracy (scenes, objects) or R^2 averaged over dimensions (bodies) of ``state`` on
            pictures that were not trained on.
        provenance: how it was made, plain text by key.
    """

    state: dict[str, Tensor]
    held_out_score: float
    provenance: dict[str, str]


def draw_pictures(count: int, seed: int, image_size: int = 128) -> PretrainingPictures:
    """Draw ``count`` pictures of each kind, half with the 7 and half with the 26 categories' expressions.

    Raises RequestError for too few to hold some out.
    """
    if count < FEWEST_PICTURES:
        raise RequestError(f"--pictures {count}: give a whole number from {FEWEST_PICTURES}")
    generator = np.random.default_rng([seed, count])
    side = architecture(ARCH).input_size
    shape = (count, side, side, 3)
    contexts, bodies, objects = (np.empty(shape, np.uint8) for _ in range(3))
    scene_N = generator.integers(len(SCENE_NAMES), size=count)
    object_N = generator.integers(len(OBJECT_NAMES), size=count)
    scenarios = _unconfounded_scenarios(scene_N, seed)
    for row, scenario in enumerate(scenarios):
        picture = render(scenario, image_size)
        contexts[row] = architecture(ARCH).frame(picture.image_HWC)
        bodies[row] = crop_square(picture.image_HWC, picture.body_box, side)
        objects[row] = architecture(ARCH).frame(render_object(int(object_N[row]), scenario, image_size))
    expression_ND = np.stack([scenario.expression for scenario in scenarios])
    standardised_ND = (expression_ND - expression_ND.mean(0)) / expression_ND.std(0)
    order = generator.permutation(count)  # so that held-out pictures come from both halves
    return PretrainingPictures(
        contexts[order],
        bodies[order],
        objects[order],
        scene_N[order],
        object_N[order],
        standardised_ND.astype(np.float32)[order],
        np.array([not scenario.seen_from_behind for scenario in scenarios])[order],
    )


def _unconfounded_scenarios(scene_N: npt.NDArray[np.int64], seed: int) -> list[Scenario]:
    scenarios: list[Scenario] = []
    for like, count in (("caer_s", len(scene_N) - len(scene_N) // 2), ("emotic", len(scene_N) // 2)):
        settings = WorldSettings.model_validate({"like": like, "bias": 0, "seed": seed})
        latents = CausalModel(settings).draw("test_do", count)
        scenarios += [latents.scenario(row) for row in range(count)]
    return [replace(drawn, scene=int(scene)) for drawn, scene in zip(scenarios, scene_N, strict=True)]


def pretrain(name: str, pictures: PretrainingPictures, seed: int, recipe: Recipe) -> StandIn:
    """Train the stand-in called ``name`` ("scenes", "objects" or "bodies") on the CPU.

    The same pictures, seed, thread count and torch version give the same parameters. torch's global generator
    is left as it was.
    """
    images, targets = _task(name, pictures)
    held_out = int(HELD_OUT_SHARE * len(images))
    learned = images[held_out:][: recipe.pictures]
    with _seeded(seed):
        network = ThinResNet(STAND_IN_OUTPUTS[name])
        # A mirrored body is another expression: left and right arm have dimensions of their own.
        _fit(network, learned, targets[held_out : held_out + len(learned)], recipe.epochs, name != "bodies")
    state = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    score = _score(_predict(network, images[:held_out]), targets[:held_out])
    provenance = {
        "architecture": ARCH,
        "task": name,
        "seed": str(seed),
        "pictures": f"{len(learned)} of the embedded world, unconfounded",
        "epochs": str(recipe.epochs),
        "held_out_pictures": str(held_out),
        "held_out_r2" if name == "bodies" else "held_out_accuracy": f"{score:.4f}",
        "python": platform.python_version(),
        **{package: version(package) for package in ("ccim_ray", "torch", "numpy", "pillow")},
    }
    return StandIn(state, score, provenance)


def save_stand_in(stand_in: StandIn, path: Path) -> None:
    """Write the float16 parameters with their provenance as metadata, atomically."""
    with atomic_path(path) as temporary:
        # save_file would make it readable for its owner alone, whatever the umask.
        temporary.write_bytes(save(stand_in.state, metadata=stand_in.provenance))


def _task(name: str, pictures: PretrainingPictures) -> tuple[Pictures, Tensor]:
    if name == "scenes":
        return pictures.contexts, torch.from_numpy(pictures.scene_N)
    if name == "objects":
        return pictures.objects, torch.from_numpy(pictures.object_N)
    visible_N = pictures.face_visible_N
    return pictures.bodies[visible_N], torch.from_numpy(pictures.expression_ND[visible_N])


def _fit(network: ThinResNet, images: Pictures, targets: Tensor, epochs: int, mirror: bool) -> None:
    backbone = Backbone(architecture(ARCH), network, keep_head=True).train()
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=epochs * steps)
    loss_of: Callable[[Tensor, Tensor], Tensor] = F.smooth_l1_loss if targets.ndim == 2 else F.cross_entropy
    for _ in range(epochs):
        order = torch.randperm(len(images))[: steps * BATCH_SIZE]
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch_BSSC = torch.from_numpy(images[rows.numpy()])
            if mirror:
                mirrored_B = torch.rand(len(rows)) < 0.5
                batch_BSSC = torch.where(mirrored_B[:, None, None, None], batch_BSSC.flip(2), batch_BSSC)
            loss = loss_of(backbone.outputs(backbone.normalise(batch_BSSC)), targets[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


@torch.inference_mode()
def _predict(network: ThinResNet, images: Pictures) -> Tensor:
    backbone = Backbone(architecture(ARCH), network, keep_head=True).eval()
    batches = (torch.from_numpy(images[start : start + 256]) for start in range(0, len(images), 256))
    return torch.cat([backbone.outputs(backbone.normalise(batch)) for batch in batches])


def _score(outputs_NK: Tensor, targets: Tensor) -> float:
    if targets.ndim == 1:
        return (outputs_NK.argmax(1) == targets).double().mean().item()
    residual_K = (outputs_NK - targets).double().square().mean(0)
    return (1 - residual_K / targets.double().var(0, unbiased=False)).mean().item()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # torch.manual_seed would also seed other devices, whose state is not put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
