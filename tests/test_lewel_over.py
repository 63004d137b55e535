"""LEWEL's aligned branch over SwAV and NNCLR, held to slow literal versions in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from small_methods import Drawn, converted, small_method
from torch import Tensor

from ssl_backbones.data import Request
from ssl_backbones.losses import batch_info_nce, sinkhorn
from ssl_backbones.methods import LewelNNCLRConfig, LewelSwAVConfig, Method, MethodConfig

BATCH = 6


def made(kind: type[MethodConfig], **choices: Any) -> Method:
    return small_method(kind, **choices).double().eval()


def shown(method: Method) -> Any:
    """A batch of the method's own."""
    dataset = method.dataset(Drawn(BATCH), 16, 3)
    return converted(dataset.on_device(dataset[Request(0, np.arange(BATCH))].content), torch.float64)


def unit(vector: Tensor) -> Tensor:
    return vector / math.sqrt(float((vector * vector).sum()))


def softmax_at(logits: list[float], at: int) -> float:
    return math.exp(logits[at]) / sum(map(math.exp, logits))


def literal_swav(embeddings: Tensor, prototypes: Tensor, config: LewelSwAVConfig) -> float:
    """Eq. 2 and 6 of SwAV with the mean of its code, row by row, of embeddings (V, R, D)."""
    views, rows, _ = embeddings.shape
    z = [[unit(embeddings[v, r]) for r in range(rows)] for v in range(views)]
    scores = [[[float(one @ c) for c in prototypes] for one in view] for view in z]
    found = []
    for s in range(2):
        q = sinkhorn(torch.tensor(scores[s], dtype=torch.float64), config.epsilon, config.iterations)
        for t in range(views):
            for r in range(rows) if t != s else ():
                logits = [score / config.temperature for score in scores[t][r]]
                found.append(-sum(float(q[r, k]) * math.log(softmax_at(logits, k)) for k in range(len(prototypes))))
    return sum(found) / len(found)


@pytest.mark.parametrize("crops", [0, 2])
def test_swav_row_by_row(crops: int) -> None:
    """Globally, and of all aligned embeddings together: map k of an image predicts map k of its other views."""
    method: Any = made(LewelSwAVConfig, crops=crops, aligned_dim=8, aligned_prototypes=9, aligned_weight=0.3)
    batch = shown(method)
    assert len({view.shape[2] for view in batch}) == (2 if crops else 1)
    with torch.no_grad():
        scalars, embedded = method(batch), [method.embed(view) for view in batch]
    z = torch.stack([one.projection for one in embedded])
    y = torch.stack([one.aligned for one in embedded])  # (V, B, n, d)
    rows = torch.stack(
        [torch.stack([y[v, b, n] for b in range(BATCH) for n in range(y.shape[2])]) for v in range(len(y))]
    )
    of_all = literal_swav(z, method.prototypes.weight.detach(), method.config)
    of_maps = literal_swav(rows, method.aligned_prototypes.weight.detach(), method.config)
    assert float(scalars["global_loss"]) == pytest.approx(of_all, rel=1e-10)
    assert float(scalars["aligned_loss"]) == pytest.approx(of_maps, rel=1e-10)
    assert float(scalars["loss"]) == pytest.approx(0.7 * of_all + 0.3 * of_maps, rel=1e-10)
    assert scalars["chance"] == pytest.approx(0.7 * math.log(12) + 0.3 * math.log(9))


def literal_nnclr(z: Tensor, p: Tensor, past: Tensor, of: list[int], config: LewelNNCLRConfig) -> float:
    """Eq. 2 of NNCLR, map by map: embeddings z (B, n, D), predictions p, past embeddings (K, n, D) of images `of`."""
    found = []
    for i in range(len(z)):
        for k in range(z.shape[1]):
            kept = [j for j in range(len(past)) if not (config.exclude_self and of[j] == i)]
            nearest = min(kept, key=lambda j: float(((unit(z[i, k]) - past[j, k]) ** 2).sum()))
            compared = [
                (j, m)
                for j in range(len(p))
                for m in range(p.shape[1])
                if {
                    "other_images_all_maps": j != i,
                    "other_images_same_map": j != i and m == k,
                    "everything": True,
                }[config.aligned_negatives]
                or (j, m) == (i, k)
            ]
            logits = [float(past[nearest, k] @ unit(p[j, m])) / config.temperature for j, m in compared]
            found.append(-math.log(softmax_at(logits, compared.index((i, k)))))
    return sum(found) / len(found)


@pytest.mark.parametrize("negatives", ["other_images_all_maps", "other_images_same_map", "everything"])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_nnclr_map_by_map(negatives: str, exclude_self: bool) -> None:
    choices = {"aligned_negatives": negatives, "exclude_self": exclude_self, "aligned_weight": 0.3, "aligned_dim": 8}
    method: Any = made(LewelNNCLRConfig, **choices)
    batch = shown(method)
    of = [number % BATCH for number in range(16)]
    for queue in (method.queue, method.aligned_queue):
        queue.numbers.copy_(torch.tensor(of))
    with torch.no_grad():
        scalars, (first, second) = method(batch), [method.embed(view) for view in batch[0]]

        def symmetric(a: Tensor, b: Tensor, predictor: Any, past: Tensor) -> float:
            past = torch.stack([torch.stack([unit(one) for one in row]) for row in past])
            both = [(a, predictor(b)), (b, predictor(a))]
            return sum(literal_nnclr(z, p, past, of, method.config) for z, p in both) / 2

        z1, z2 = first.projection[:, None], second.projection[:, None]
        of_all = symmetric(z1, z2, method.predictor, method.queue.keys[:, None])
        past = method.aligned_queue.keys.reshape(16, -1, 8)
        of_maps = symmetric(first.aligned, second.aligned, method.aligned_predictor, past)
    assert float(scalars["global_loss"]) == pytest.approx(of_all, rel=1e-10)
    assert float(scalars["aligned_loss"]) == pytest.approx(of_maps, rel=1e-10)
    assert float(scalars["loss"]) == pytest.approx(0.7 * of_all + 0.3 * of_maps, rel=1e-10)
    if exclude_self:
        assert scalars["own_neighbours"] == scalars["own_aligned_neighbours"] == 0


def test_nnclrs_queue_keeps_every_maps_embedding_of_the_first_view() -> None:
    """Unit vectors under every map, which the next step finds again."""
    method: Any = made(LewelNNCLRConfig, aligned_dim=8).train()
    (views, rows) = shown(method)
    method((views, rows))
    method.on_step_end(0.0)
    keys = method.aligned_queue.keys[:BATCH].unflatten(1, (-1, 8))
    torch.testing.assert_close(keys.norm(dim=2) * math.sqrt(keys.shape[1]), torch.ones(keys.shape[:2]).double())
    found, own = method.nearest(3 * keys, rows, method.aligned_queue)
    torch.testing.assert_close(found, keys * math.sqrt(keys.shape[1]))
    assert own == 1


def test_without_the_branch_it_is_nnclrs_loss() -> None:
    method: Any = made(LewelNNCLRConfig, aligned_weight=0.0)
    views, rows = shown(method)
    with torch.no_grad():
        (a, b), loss = [method.embed(view).projection for view in views], method((views, rows))["loss"]
        found = [method.nearest(z[:, None], rows, method.queue)[0][:, 0] for z in (a, b)]
        predicted = [method.predictor(z) for z in (b, a)]
        expected = sum(batch_info_nce(nn_, p, 0.1) for nn_, p in zip(found, predicted, strict=True)) / 2
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("kind", "choices", "words"),
    [
        (LewelSwAVConfig, {"aligned_prototypes": 3}, "aligned_prototypes is 3, but must be at least the 4 crops"),
        (LewelSwAVConfig, {"epsilon": 0.0}, "epsilon must be positive"),
        (LewelNNCLRConfig, {"aligned_queue_size": 0}, "aligned_queue_size must be positive"),
        (LewelNNCLRConfig, {"aligned_negatives": "nobody"}, "aligned_negatives must be one of"),
        (LewelNNCLRConfig, {"aligned_weight": 1.5}, "aligned_weight is a share"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(kind: type[MethodConfig], choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small_method(kind, **choices)


def test_an_aligned_queue_that_would_hold_the_query_itself_is_refused_in_words() -> None:
    method = small_method(LewelNNCLRConfig, queue_size=8, aligned_queue_size=30)
    with pytest.raises(ValueError, match=r"queue_size is 30, but 32 images and a batch of 8 leave 24 keys of other"):
        method.check_data(32, 8)
