"""Deep InfoMax with the local objective, DIM(L). Hjelm et al., 2019. https://arxiv.org/abs/1808.06670

Sizes are those of the baseline that Patch RotNet is compared with; there is no global term, as in the paper's DIM(L).
The prior is a game of two: a discriminator learns to tell embeddings from uniform noise, and the encoder to pass for
noise. In code that followed, both descend one and the same loss, by which the encoder is told to be unlike noise;
prior="cooperative" repeats that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.func import functional_call

from ssl_backbones.checks import check_positive
from ssl_backbones.distributed import own_rows, share_first, world_size
from ssl_backbones.losses import discriminator_loss, generator_loss
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import pooled, width_of
from ssl_backbones.models.crop_flip_choices import CropFlipChoices
from ssl_backbones.models.discriminators import LocalDiscriminator, prior_discriminator
from ssl_backbones.registry.papers import Paper
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import CropFlip

Prior = Literal["adversarial", "cooperative"]


@dataclass(frozen=True)
class DeepInfoMaxConfig(CropFlipChoices, MethodConfig):
    """Deep InfoMax's choices."""

    name: ClassVar[str] = "deep_infomax"
    paper: ClassVar[Paper] = Paper(
        "Deep InfoMax",
        "Learning Deep Representations by Mutual Information Estimation and Maximization",
        "Hjelm et al.",
        2019,
        "https://arxiv.org/abs/1808.06670",
    )
    layer: int = 0
    """Index of the backbone's feature map that is local; 0 is the stem's."""
    hidden_dim: int = 256
    """The width inside the local discriminator."""
    local_weight: float = 1.0
    """Weight of the local objective: the paper's beta."""
    prior_weight: float = 0.1
    """Weight of matching the prior: the paper's gamma."""
    prior: Prior = "adversarial"
    """"adversarial": the encoder fools the discriminator; "cooperative": it helps it, as in the public baseline."""
    crop_padding: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a negative weight of the prior, or an unknown choice."""
        super().__post_init__()
        check_positive(hidden_dim=self.hidden_dim, local_weight=self.local_weight)
        if not 0 <= self.prior_weight < math.inf:
            raise ValueError(f"prior_weight must be at least 0, not {self.prior_weight}")
        check_choices(self)

    def build(self, backbone: nn.Module) -> DeepInfoMax:
        return DeepInfoMax(backbone, self)


class DeepInfoMax(Method):
    """An image's embedding is told from others' by each place of its own feature map, and spread like noise."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: DeepInfoMaxConfig | None = None) -> None:
        """Raise ValueError for a layer that the backbone does not have."""
        super().__init__()
        self.config = config = config or DeepInfoMaxConfig()
        self.backbone = backbone
        width, maps = width_of(backbone), [stage["num_chs"] for stage in backbone.feature_info]  # type: ignore[union-attr]
        if not 0 <= config.layer < len(maps):
            raise ValueError(
                f"layer={config.layer} is none of the backbone's {len(maps)} feature maps: choose 0 to {len(maps) - 1}"
            )
        self.local_discriminator = LocalDiscriminator(maps[config.layer], width, config.hidden_dim)
        self.prior_discriminator = prior_discriminator(width)

    def transform(self, size: int) -> CropFlip:
        return self.config.crop_flip(size, self.backbone)

    def forward(self, batch: Tensor) -> dict[str, Tensor | float]:
        """Score images (B, 3, S, S); every image needs another one, here or in another process; ValueError without."""
        if world_size() * len(batch) < 2:
            raise ValueError("a batch of one image has no other to tell it from: raise the batch size to 2 or more")
        features, (maps,) = self.backbone.forward_intermediates(batch, indices=[self.config.layer])  # type: ignore[operator]
        embeddings = pooled(features)
        local_loss = discriminator_loss(*self.local_discriminator(maps, embeddings))
        prior_loss = self.prior_loss(embeddings)
        terms = 3 if self.config.prior == "adversarial" else 2  # each log 2 where nothing is told from anything
        return {
            "loss": self.config.local_weight * local_loss + self.config.prior_weight * prior_loss,
            "local_loss": local_loss.detach(),
            "prior_loss": prior_loss.detach(),
            "chance": (2 * self.config.local_weight + terms * self.config.prior_weight) * math.log(2),
        }

    def prior_loss(self, embeddings: Tensor) -> Tensor:
        """The losses of encoder and discriminator on embeddings (B, D); each has gradients for its own weights.

        Features after a ReLU are 0 at least, and 2 sigmoid(y) - 1 = tanh(y / 2) takes them onto the range of the noise.
        The paper's sigmoid is of a linear output, which may be negative.
        """
        noise = embeddings.new_empty(world_size() * len(embeddings), embeddings.shape[1]).uniform_()
        share_first(noise)  # as one process would draw it for the whole batch
        noise = own_rows(noise, len(embeddings))
        if self.config.prior == "cooperative":
            return discriminator_loss(self.prior_discriminator(noise), self.prior_discriminator(embeddings))
        embeddings = (embeddings / 2).tanh()
        told = discriminator_loss(self.prior_discriminator(noise), self.prior_discriminator(embeddings.detach()))
        frozen = {name: weights.detach() for name, weights in self.prior_discriminator.named_parameters()}
        return told + generator_loss(functional_call(self.prior_discriminator, frozen, (embeddings,)))
