"""The training step as the loop takes it, and the bare passes of a backbone that it cannot do without."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from PIL import Image
from timing import command, say_verdicts, write
from timm.models import create_model as timm_model
from timm.models import save_for_hf
from torch import Tensor, nn

import ssl_backbones
from ssl_backbones import methods
from ssl_backbones.data import Batch, BatchDataset, Images
from ssl_backbones.data.order import Order
from ssl_backbones.data.placement import MEMORY_FORMATS, mapped
from ssl_backbones.distributed import rank, world_size
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.mining import Pairs
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring, OptimizerConfig, Promise, ScheduleConfig
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.monitor import Monitor
from ssl_backbones.train.precision import DTYPES, Compute

CONFIGS: dict[str, type[MethodConfig]] = {
    value.name: value
    for value in (getattr(methods, name) for name in methods.__all__)
    if isinstance(value, type) and issubclass(value, MethodConfig) and value is not MethodConfig
}
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A backbone at a size of image, with the widths of the heads on it."""

    name: str
    backbone: str
    size: int
    batch: int
    widths: Mapping[str, int] = field(default_factory=dict)
    """Values for fields of every head that has them; empty for the papers'."""
    small_stem: bool = False
    """True if the stem is one 3x3 convolution that keeps every pixel."""

    def network(self) -> nn.Module:
        """A new backbone without head, the same each time."""
        torch.manual_seed(0)
        if not self.small_stem:
            headless: nn.Module = ssl_backbones.create_model(self.backbone, num_classes=0)
            return headless
        model: nn.Module = timm_model(self.backbone, num_classes=0)
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        return model

    def config(self, kind: type[MethodConfig], **choices: Any) -> MethodConfig:
        """A method's configuration with this case's widths, and with those of the choices that it knows."""
        splits = max(2, self.batch // 8)  # as many images in a group as there are in the papers' batch of 64
        known = {one.name for one in dataclasses.fields(kind)}
        wanted = {
            "bn_splits": splits,
            "classes": CLASSES,
            "clusters": min(CLASSES, self.batch),
            "granularities": (2, min(CLASSES, self.batch)),
            "negatives": 0,
            **self.widths,
            **choices,
        }
        return kind(**{name: value for name, value in wanted.items() if name in known})


SMALL_HEADS = {"hidden_dim": 512, "projection_dim": 128, "aligned_dim": 128}
MULTI_CROP_HEADS = {"hidden_dim": 1024, "projection_dim": 128, "prototypes": 1000, "outputs": 4096}
"""Values for a ResNet-18: as in small recipes, with prototypes for some ten thousand images."""
CASES = {
    case.name: case
    for case in (
        Case("resnet18@64", "resnet18", 64, 64, SMALL_HEADS),
        Case("resnet18-3x3@32", "resnet18", 32, 64, SMALL_HEADS, small_stem=True),
        Case("resnet8@96", "resnet8", 96, 64, {**SMALL_HEADS, "hidden_dim": 256}),
        Case("resnet50@224", "resnet50", 224, 8),
        Case("resnet18@160", "resnet18", 160, 16, MULTI_CROP_HEADS),
    )
}
QUICK = Case("quick", "resnet8", 16, 8, {"hidden_dim": 16, "projection_dim": 16, "aligned_dim": 16, "queue_size": 64})
"""The sizes that a test has the time for."""

Row = dict[str, Any]


def command_of_cases(script: str, doc: str | None, usual: Sequence[str]) -> argparse.ArgumentParser:
    """The options of a benchmark that measures several cases, the usual ones where none is named."""
    parser = command(script, doc, rounds=9)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(usual))
    parser.add_argument("--batch", type=int, help="images a step, instead of each case's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one tiny case, for a test")
    return parser


def measure_cases(
    options: argparse.Namespace,
    about: Row,
    measure: Callable[[Case], Row],
    say: Callable[[Row], None],
    verdicts: Callable[[Sequence[Row]], list[Row]],
) -> None:
    """Measure the cases asked for, printing and writing each when it is done, and say which targets are met."""
    results = about | {"measured": []}
    print(about)
    for case in [QUICK] if options.quick else [CASES[name] for name in options.cases]:
        case = dataclasses.replace(case, batch=options.batch or case.batch)
        shape = {"case": case.name, "size": case.size, "batch": case.batch, "widths": dict(case.widths)}
        results["measured"].append(shape | measure(case))
        say(results["measured"][-1])
        results["verdicts"] = verdicts(results["measured"])
        write(results, options.out)
    say_verdicts(results["verdicts"])


class Noise(Images):
    """Images that show nothing, in classes, as quick to open as can be."""

    classes = tuple(f"class {number}" for number in range(CLASSES))

    def __init__(self, count: int, size: int) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        self.keys = [f"{number}.png" for number in range(count)]
        self.labels = np.arange(count) % CLASSES
        self.fingerprint = f"{count} x {size}"

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


@contextmanager
def given_for(images: Images) -> Iterator[dict[str, str]]:
    """Pairs for methods that want any, of each image the four that follow it, and a teacher that knows nothing."""
    rows = (np.arange(len(images))[:, None] + np.arange(1, 5)) % len(images)
    with tempfile.TemporaryDirectory(prefix="given-") as folder:
        found = {"pairs": f"{folder}/pairs.parquet", "teacher": f"{folder}/teacher"}
        Pairs(rows, {}).write(found["pairs"], images, overwrite=True)
        save_for_hf(ssl_backbones.create_model("resnet8", num_classes=0), found["teacher"], safe_serialization=True)
        yield found


def anew() -> None:
    """Let Accelerate forget the precision of the run before, but not the processes, which have met already."""
    AcceleratorState._reset_state(reset_partial_state=False)
    if world_size() == 1:
        PartialState._reset_state()


def recipe_of(case: Case, config: MethodConfig, compute: Compute, **fields: Any) -> Recipe:
    """A run of a method that does nothing but train, without an end in sight."""
    usual: dict[str, Any] = {
        "name": f"{case.name} {config.name}",
        "model": f"{case.backbone}_{config.name}",
        "method": config,
        "promise": Promise("no paper", "none", "a benchmark's", 1, "any", None, "none"),
        "size": case.size,
        "epochs": 100_000,
        "batch_size": case.batch * world_size(),
        "optimizer": OptimizerConfig("sgd", 1e-3),
        "schedule": ScheduleConfig("constant"),
        "precision": compute.precision,
        "layout": compute.layout,
        "workers": 0,
        "monitoring": Monitoring(knn_every=0),
    }
    return Recipe(**usual | fields)


def loop_of(recipe: Recipe, case: Case, images: Images, compute: Compute, accelerator: Accelerator) -> Loop:
    """The loop before its first step; it has a folder in name only, and writes nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images make small groups
        method = recipe.method.build(case.network())
    monitor = Monitor(images, None, recipe.monitoring, recipe.seed)
    return Loop(recipe, images, monitor, method, compute, accelerator, RunFolder(Path("unused")))


class Step:
    """One step of the real loop, on the same batch each time: `Loop.descend`.

    That is: the learning rate, the batch to the device, cast, normalised and laid out, the method's forward under the
    precision, the backward, the watch for numbers that are none, the optimiser, the targets and queues, the log's sums.
    """

    def __init__(self, loop: Loop, batch: int) -> None:
        self.loop = loop
        self.batches = [self.batch_of(loop.dataset, batch)]

    @staticmethod
    def batch_of(dataset: BatchDataset, count: int) -> Batch:
        """So many images as a loader hands them over: this process's share of what all ask for first."""
        order = Order(len(dataset), count * world_size(), 0, rank(), world_size())
        batch = dataset[next(order.requests(epoch=0))]
        return batch._replace(content=mapped(Tensor.pin_memory, batch.content)) if torch.cuda.is_available() else batch

    def __call__(self) -> None:
        self.loop.descend(self.batches)

    def held(self) -> int:
        """Bytes that stay between steps: weights, buffers (targets and queues among them), the optimiser's state."""
        tensors = [*self.loop.method.parameters(), *self.loop.method.buffers()]
        tensors += [value for state in self.loop.optimizer.state.values() for value in state.values()]
        return sum(value.nbytes for value in tensors if isinstance(value, Tensor))

    def passes(self) -> tuple[Pass, ...]:
        """Each time that a step sends images through the backbone or a copy of it, in order."""
        found: list[Pass] = []

        def note(backbone: nn.Module, images: Tensor) -> None:
            learns = torch.is_grad_enabled() and backbone is self.loop.method.backbone
            found.append(Pass(tuple(images.shape), learns, backbone.training))

        stems = [
            (module, module.conv1)
            for path, module in self.loop.method.named_modules()
            if path.rpartition(".")[2] == "backbone"
        ]
        hooks = [
            stem.register_forward_pre_hook(lambda _, inputs, backbone=backbone: note(backbone, inputs[0]))
            for backbone, stem in stems
        ]
        self()
        for hook in hooks:
            hook.remove()
        return tuple(found)


class Pass(NamedTuple):
    """Images that go through a backbone."""

    shape: tuple[int, ...]
    learns: bool
    """True if a backward pass follows; otherwise they go through a copy without gradient."""
    training: bool
    """True if its BatchNorms take the batch's statistics."""


class Bare:
    """The bare passes of a step: the backbone's forwards in the same number, order and mode on noise
    that is ready on the device, one backward from the mean of the feature maps, and the optimiser on the backbone.

    No heads, no loss, no targets that move, no views, no log.
    """

    def __init__(self, case: Case, passes: tuple[Pass, ...], compute: Compute, device: torch.device) -> None:
        layout = MEMORY_FORMATS[compute.layout]
        self.passes, self.dtype, self.device = passes, DTYPES.get(compute.precision), device
        self.online = case.network().to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.copy = copy.deepcopy(self.online).requires_grad_(False)
        self.images = [torch.randn(one.shape, device=device).contiguous(memory_format=layout) for one in passes]
        self.optimizer = torch.optim.SGD(self.online.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)

    def __call__(self) -> None:
        total = torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            for one, images in zip(self.passes, self.images, strict=True):
                network = (self.online if one.learns else self.copy).train(one.training)
                with torch.set_grad_enabled(one.learns):
                    mean = network.forward_features(images).mean(dtype=torch.float32)  # type: ignore[operator]
                total = total + mean
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
