"""The monitor of a pretraining run: k-NN accuracy where there are labels, spread and retrieval of features always."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_backbones.data.copies import without_copies
from ssl_backbones.data.images import Images, by_content
from ssl_backbones.distributed import first_decides, gather
from ssl_backbones.metrics import effective_rank, feature_std, knn_predict, nearest_others, own_image_found, paired_gain
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.runs.results import Number, proportion
from ssl_backbones.runs.trend import late_trend
from ssl_backbones.shares import own_share, rows_at
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.judge import Measured
from ssl_backbones.views.randomness import permutation

SPREAD = 4096
"""Images over which the spread of features is measured, at most."""
SOUGHT = 512
"""Images that are sought by a view of them among all, at most, and whose neighbours are noted."""
CPU = torch.device("cpu")
NEIGHBOURS = 10
"""Neighbours that are noted, to see how many the next measurement finds again."""

Embed = Callable[[Images, np.ndarray], Tensor]
"""Features (N, D) of the backbone for the images at the given indices (N,)."""


class Monitor:
    """The images of the k-NN test, chosen once: a bank of neighbours, and queries held against it.

    Labelled validation images are the queries; without them, the bank's own images are, each held against the others,
    less copies of one another.
    """

    baselines: dict[str, Any] | None = None
    """The comparison with other networks at the end, as results.json has it."""

    def __init__(self, images: Images, validation: Images | None, config: Monitoring, seed: int) -> None:
        self.config, self.every, self.at_start = config, config.knn_every, True
        labelled = [source for source in (images, validation) if source is not None and has_labels(source)]
        self.bank_images = labelled[0] if labelled else images
        self.query_images = labelled[1] if len(labelled) == 2 else None
        order = permutation(seed, 0, len(self.bank_images))
        if labelled and len(order) > config.bank:  # those without a label come last
            order = order[np.argsort(labels_of(self.bank_images, order).numpy() < 0, kind="stable")]
        self.bank = np.sort(order[: config.bank if labelled else SPREAD])
        if labelled and self.query_images is None:
            self.bank = first_decides(lambda: without_copies(self.bank_images, self.bank))
        self.labelled = bool(labelled) and int((labels_of(self.bank_images, self.bank) >= 0).sum()) > 1
        self.sought = np.sort(permutation(seed, 1, len(self.bank))[:SOUGHT])

    @property
    def asked_images(self) -> Images:
        """The source of the queries."""
        return self.query_images or self.bank_images

    def question(self, name: Callable[[Images], str] = by_content) -> dict[str, Any]:
        """All that two measurements must share to be comparable, as JSON; `name` gives the images' fingerprints."""
        return {
            "k": self.config.k,
            "bank": [len(self.bank), name(self.bank_images)],
            "queries": name(self.query_images) if self.query_images else None,
        }

    def judge(self, bench: Bench) -> Measured:
        """Measure the backbone's features, on its device."""
        return self.measure(bench.embed, bench.embed_views, bench.device)

    def measure(self, embed: Embed, embed_views: Embed, device: torch.device = CPU) -> Measured:
        """Measure the spread of the features, retrieval and, where there are labels, the k-NN accuracy.

        Processes share out the queries of the latter, and call this together.
        """
        device = device if device.type == "cuda" else CPU  # others lack float64
        bank = embed(self.bank_images, self.bank).to(device)
        scalars = {"std": feature_std(bank[:SPREAD]), "rank": effective_rank(bank[:SPREAD])}
        rows = torch.from_numpy(self.sought).to(device)
        views = embed_views(self.bank_images, self.bank[self.sought])
        scalars["retrieval"] = own_image_found(views, bank, rows).double().mean().item()
        near = nearest_others(bank[rows], min(NEIGHBOURS, len(rows) - 1)) if len(rows) > 1 else None
        correct = self.correct(embed, bank)
        if correct is not None:
            scalars["knn"] = correct.double().mean().item()
        return Measured(scalars, correct, near)

    def correct(self, embed: Embed, bank: Tensor) -> Tensor | None:
        """Correct predictions (M,) bool of the labelled queries; None without labels."""
        if not self.labelled:
            return None
        bank_labels = labels_of(self.bank_images, self.bank)
        if self.query_images is None:
            queries, query_labels = bank, bank_labels
        else:
            everyone = np.arange(len(self.query_images))
            queries, query_labels = embed(self.query_images, everyone), labels_of(self.query_images, everyone)
        known_bank, known = torch.nonzero(bank_labels >= 0)[:, 0], torch.nonzero(query_labels >= 0)[:, 0]
        own = own_share(torch.arange(len(known)))
        asked = rows_at(queries, known[own]).to(bank.device)
        itself = own if self.query_images is None else None
        named = knn_predict(rows_at(bank, known_bank), bank_labels[known_bank], asked, k=self.config.k, itself=itself)
        return gather(named)[: len(known)].cpu() == query_labels[known]

    def chance(self) -> float:
        """Chance level: the accuracy of always naming the most frequent class of the queries."""
        asked = self.asked_images
        labels = labels_of(asked, np.arange(len(asked)) if self.query_images else self.bank)
        counts = torch.bincount(labels[labels >= 0])
        return (counts.max() / counts.sum()).item()

    def numbers(self, before: Measured, after: Measured, random: Measured | None = None) -> dict[str, Number]:
        """The numbers of results.json, each after training and before it, and the gain in accuracy.

        Likewise of random weights, where training began with others. A run that an earlier version began has no
        retrieval before it.
        """
        found: dict[str, Number] = {}
        if before.correct is not None and after.correct is not None:
            gain, total = paired_gain(before.correct, after.correct), len(after.correct)
            found = {
                "knn before": proportion(int(before.correct.sum()), total) | {"k": self.config.k},
                "knn": proportion(int(after.correct.sum()), total) | {"k": self.config.k},
                "knn gain": asdict(gain) | {"of": total},
            }
            if random is not None and random.correct is not None:
                found["knn random"] = proportion(int(random.correct.sum()), total) | {"k": self.config.k}
                over = paired_gain(random.correct, after.correct)
                found["knn gain over random"] = asdict(over) | {"of": total}
        sought, stages = len(self.sought), {" random": random, " before": before, "": after}
        for suffix, measured in stages.items():
            if measured is not None and (share := measured.scalars.get("retrieval")) is not None:
                found[f"retrieval{suffix}"] = proportion(round(share * sought), sought) | {"among": len(self.bank)}
        for name in ("std", "rank"):
            for suffix, measured in stages.items():
                if measured is not None:
                    found[f"{name}{suffix}"] = {"value": measured.scalars[name]}
        return found

    def trend(self, lines: Sequence[Mapping[str, Any]], after: Measured) -> dict[str, Any]:
        """The second half of the run by the lines of its log, as results.json has it."""
        asked = {} if after.correct is None else {"knn": len(after.correct)}
        return late_trend(lines, asked | {"retrieval": len(self.sought)})

    def about(self, after: Measured) -> dict[str, Any]:
        """The k-NN protocol as results.json has it beside its numbers; empty without labels."""
        if after.correct is None:
            return {}
        return {
            "kind": "held-out queries" if self.query_images else "each image against the others",
            "chance": self.chance(),
            "bank": {"images": len(self.bank)},
            "queries": {"images": len(after.correct)},
        }


def has_labels(images: Images) -> bool:
    """True if the images have at least two classes: one class alone would always be right."""
    return images.labels is not None and len(np.setdiff1d(images.labels, [-1])) > 1


def labels_of(images: Images, indices: np.ndarray) -> Tensor:
    """The labels (N,) of some images."""
    assert images.labels is not None
    return torch.from_numpy(np.asarray(images.labels)[indices]).long()
