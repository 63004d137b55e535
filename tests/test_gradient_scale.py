"""The gradient of a source, as a multiple of that of our loss: what LARS leaves plain moves with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_recipes import STATED
from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss

from ssl_backbones import recipes
from ssl_backbones.losses import barlow_twins, nt_xent, vicreg

GPUS, IMAGES, WIDTH = 32, 64, 3
Parts = tuple[Tensor, ...]


def barlow_twins_there(first: Parts, second: Parts) -> list[Tensor]:
    """The losses of GPUs that add up the correlation outside of the gradient."""
    whole = [torch.cat(parts) for parts in (first, second)]
    scaled = [(rows - rows.mean(0)) / rows.std(0, correction=0) for rows in whole]
    own = [a.T @ b / IMAGES for a, b in zip(*(rows.split(IMAGES // GPUS) for rows in scaled), strict=True)]
    correlations = [part + (sum(own) - part).detach() for part in own]
    eye = torch.eye(WIDTH)
    return [((c - eye).square() * (eye + 0.005 * (1 - eye))).sum() for c in correlations]


def simclr_there(first: Parts, second: Parts) -> list[Tensor]:
    """The losses of GPUs that each add those of their two views, against the views of all."""
    every = torch.cat([*first, *second])
    losses = []
    for gpu, views in enumerate(zip(first, second, strict=True)):
        places = torch.arange(IMAGES // GPUS) + gpu * IMAGES // GPUS
        total = torch.zeros(())
        for view, rows in enumerate(views):
            itself, other = places + view * IMAGES, places + (1 - view) * IMAGES
            logits = cosine_similarity(rows[:, None], every[None], dim=2) / 0.1
            logits = logits.scatter(1, itself[:, None], -1e9)
            total = total + torch.nn.functional.cross_entropy(logits, other)
        losses.append(total)
    return losses


def vicreg_there(first: Parts, second: Parts) -> list[Tensor]:
    """The losses of GPUs that each compare their own rows, and gather all for the other terms, with their gradient."""

    def kept_alive(rows: Tensor) -> Tensor:
        apart = (1 - (rows.var(0) + 1e-4).sqrt()).relu().mean() / 2
        covariance = rows.T.cov()
        return 25 * apart + (covariance.square().sum() - covariance.diagonal().square().sum()) / WIDTH

    shared = kept_alive(torch.cat(first)) + kept_alive(torch.cat(second))
    return [25 * mse_loss(a, b) + shared for a, b in zip(first, second, strict=True)]


Losses = tuple[Callable[[Parts, Parts], list[Tensor]], Callable[[Tensor, Tensor], Tensor]]
LOSSES: dict[str, Losses] = {
    "barlow_twins": (barlow_twins_there, lambda a, b: barlow_twins(a, b, 0.005)),
    "simclr": (simclr_there, lambda a, b: nt_xent(a, b, 0.1)),
    "vicreg": (vicreg_there, lambda a, b: vicreg(a, b, variance=12.5)),
}
"""The losses of the GPUs of a source, written out, and ours of all embeddings."""
PLAIN = {
    name: row
    for rows in STATED.values()
    for name, row in rows.items()
    if row["optimizer"] == "lars" and row["plain"] != "nothing"
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_recipe_with_parameters_that_lars_leaves_plain_knows_the_gradient_of_its_source(name: str) -> None:
    recipe, scale = recipes.get(name), PLAIN[name]["gradient"]
    if recipe.method.name not in LOSSES:  # recorded numbers hold the loss, or no code is public
        assert scale == 1
        return
    there, here = LOSSES[recipe.method.name]
    views = [torch.randn(IMAGES, WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    views = [view.requires_grad_() for view in views]
    ours = torch.autograd.grad(here(*views), views)
    losses = there(*(view.split(IMAGES // GPUS) for view in views))
    theirs = torch.autograd.grad(torch.stack(losses).mean(), views)  # as DistributedDataParallel averages
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(scale * gradient, expected, rtol=1e-3, atol=1e-5)


def test_barlow_twins_rate_is_the_stated_one_for_our_gradient() -> None:
    recipe = recipes.get("resnet50_barlow_twins.in1k_1000ep")
    assert recipe.optimizer.norm_and_bias_lr == pytest.approx(0.0048 * PLAIN[recipe.name]["gradient"])
    assert f"{GPUS} GPUs" in recipe.promise.not_stated
