"""The one protocol between a method and the loop that trains it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ssl_backbones.data.batches import BatchDataset, Batches
from ssl_backbones.data.images import Images
from ssl_backbones.models.held_back import HeldBack
from ssl_backbones.registry.papers import PAPERS, Paper
from ssl_backbones.views.policy import Policy
from ssl_backbones.views.transform import Transform


@dataclass(frozen=True)
class MethodConfig(ABC):
    """The configuration of a method; it checks its fields when it is made."""

    name: ClassVar[str]
    """The method as models are named after it: lewel_b of resnet50_lewel_b."""
    paper: ClassVar[Paper]
    """The method as its authors call it, and where they describe it."""

    def __init_subclass__(cls) -> None:
        """Make a method known by its name."""
        super().__init_subclass__()
        if "paper" in vars(cls):
            PAPERS[cls.name] = cls.paper

    @property
    def given(self) -> tuple[str, ...]:
        """The names of networks that it learns from beside the images, such as a teacher; a run must not move them."""
        return ()

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policy of each view of an image, where views follow any."""
        views = getattr(self, "views", None)
        if isinstance(views, Policy):
            return (views,)
        return views if isinstance(views, tuple) else ()

    @property
    def compares_images(self) -> bool:
        """True if an image is told apart from others: of the batch, of a queue, or as prototypes have them."""
        return hasattr(self, "temperature")

    @property
    def usual_views(self) -> tuple[Policy, ...]:
        """The views, small crops aside, that go with its other choices: its own, unless these ask for others."""
        return getattr(self, "views", ())

    def on_trial(self, folder: Path) -> Self:
        """The configuration of a trial on some images: files of every image, where it keeps any, go into `folder`."""
        return self

    @abstractmethod
    def build(self, backbone: nn.Module) -> Method:
        """The method of this configuration around a headless timm model."""


class Method(nn.Module, ABC):
    """A way to train a backbone: what it is shown, and how it is scored.

    The training loop knows this page and nothing else. Subclasses are final. All state is parameters and buffers; it
    changes by the optimiser, in `on_step_end`, or in `on_epoch_start`, and nowhere else (batch statistics excepted).
    """

    backbone: nn.Module
    """The part that learns and stays: a timm model without head."""

    @abstractmethod
    def transform(self, size: int) -> Transform:
        """The views of an image at `size` x `size` pixels; the loop never opens the batch."""

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score a batch: "loss" to descend, and detached scalars worth logging.

        A method whose loss has a known value for a network that tells nothing apart reports that value as "chance".
        """

    @property
    def published(self) -> nn.Module:
        """The backbone that is measured and published: the one that learns, or a method's running average of it."""
        return self.backbone

    @property
    def embedder(self) -> nn.Module:
        """The network whose features `on_epoch_start` is given: the published one, unless a method looks at others."""
        return self.published

    @property
    def accumulation_is_exact(self) -> bool:
        """True if the loss of a batch is the mean of its parts' losses, batch statistics aside.

        False where images of a batch are compared with one another: scored in parts (`accumulation`), each meets fewer.
        """
        return True

    def check_data(self, images: int, batch_size: int) -> None:
        """Raise ValueError if `images` images, `batch_size` of them a step, are too few to train the method; the
        default accepts any."""

    def account(self) -> dict[str, Any]:
        """Entries of results.json on the networks that it learnt from, such as the provenance of a "teacher"."""
        return {}

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """The batches of an epoch; overridden where an item is more than one image transformed."""
        return Batches(images, self.transform(size), seed)

    def on_epoch_start(self, embed: Callable[[], Tensor]) -> None:
        """Look at all the data: embed() gives the embedder's features (S, D) of this process's share of the images.

        Processes have equal shares in order, at their `own_places`; a process that is alone has all the images.
        """

    def on_part_end(self) -> None:
        """Follow the backward pass of a part of a batch; where nobody does, a compiled forward is compiled for each."""
        for module in self.modules():
            if isinstance(module, HeldBack):
                module.set_aside()

    def on_step_left_out(self) -> None:
        """Forget what `forward` held back for `on_step_end`: the optimiser has made no step of it."""
        for module in self.modules():
            if isinstance(module, HeldBack):
                module.take()

    def on_step_end(self, progress: float) -> dict[str, float]:
        """Follow the optimiser's step, at `progress` in [0, 1) of the run; return scalars worth logging."""
        return {}
