"""A backbone beside its baselines: the same questions to each network, of the same images.

With labels: k-NN, each image against the others, and a linear probe, each half of the images answering about the other.
Without: retrieval of an image by a view of it among all, and the effective rank of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_backbones.catalogue.at_hand import Candidate, Network, weights_at_hand
from ssl_backbones.data.copies import without_copies
from ssl_backbones.data.images import Images
from ssl_backbones.distributed import first_decides, gather_objects, made_everywhere, say
from ssl_backbones.files import told
from ssl_backbones.metrics import effective_rank, jackknife_interval, knn_predict, own_image_found, paired_gain
from ssl_backbones.metrics.jackknife import GROUPS
from ssl_backbones.metrics.logistic_regression import fit_classifier
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.results import Number, proportion
from ssl_backbones.views import permutation

MOST, FEWEST = 1000, 64
"""Images that are asked about."""
SHARE = 0.03
"""Largest cost of the comparison, as a share of the images shown in training."""
COST = 4
"""Training images that one image asked about costs: two passes forward and two readings for each of three networks."""
K = 20
"""Neighbours that vote."""
RANDOM = "random weights"
WEIGHT_DECAY = 1e-3
"""Weight decay of the probe: the same for all networks, and not tuned."""


class UnusableBaselineError(Refusal, OSError):
    """Weights that were found on this machine, and cannot be read."""


def at_hand(architecture: str, fingerprint: str) -> Candidate[nn.Module] | None:
    """Weights of an architecture that every process finds on its machine, for images of a fingerprint."""
    found = made_everywhere(lambda: weights_at_hand(architecture, fingerprint))
    names = gather_objects(found and found.name)
    if found is None or len(set(names)) > 1:
        return None
    return replace(found, make=lambda: made_everywhere(lambda: opened(found)))


def opened(found: Candidate[nn.Module]) -> nn.Module:
    """The network with weights that were found; UnusableBaselineError where their file cannot be read."""
    try:
        return found.make()
    except OSError as error:
        raise UnusableBaselineError(told(error)) from error


def made(
    candidates: Iterable[Candidate[Network]], sha256_of: Callable[[Network], str]
) -> Iterator[tuple[Candidate[Network], Network, str]]:
    """Each candidate, its network and the digest of that; one that cannot be made is left out with a sentence."""
    known = set()
    for candidate in candidates:
        try:
            network = candidate.make()
        except Refusal as error:
            say(f"Skipped the comparison with {candidate.name}: {error}")
            continue
        digest = sha256_of(network)
        if not (candidate.once and digest in known):
            yield candidate, network, digest
        known.add(digest)


@dataclass(frozen=True)
class Seen:
    """A network's features of the n images that all networks are asked about."""

    name: str
    weights_sha256: str
    rows: Tensor
    """(n, D) of the middle crops."""
    views: Tensor
    """(n, D) of one augmented view of each."""
    images: str = ""
    """The images that it was trained on, where they are known to be others."""


@dataclass(frozen=True)
class Question:
    """The labels and the draws that all networks share."""

    labels: Tensor | None
    """(n,), -1 for an image without one; None without labels."""
    seed: int

    @property
    def labelled(self) -> Tensor | None:
        """The rows (m,) of images with a label; None for fewer than two classes of them, or too few to ask about."""
        if self.labels is None:
            return None
        rows = torch.nonzero(self.labels >= 0)[:, 0]
        return rows if len(rows) >= 2 * GROUPS and len(self.labels[rows].unique()) > 1 else None

    def correct(self, seen: Seen) -> dict[str, Tensor]:
        """Right answers, bool: "retrieval" (n,) and, with labels, "knn" and "probe" (m,)."""
        right = {"retrieval": own_image_found(seen.views, seen.rows, torch.arange(len(seen.rows)))}
        if (rows := self.labelled) is not None and self.labels is not None:
            features, labels = seen.rows[rows], self.labels[rows]
            right["knn"] = knn_predict(features, labels, features, k=K, exclude_self=True) == labels
            right["probe"] = self.probed(features, labels) == labels
        return right

    def probed(self, features: Tensor, labels: Tensor) -> Tensor:
        """The class (m,) of each of features (m, D) by a linear classifier of the half that it is not in."""
        answers = torch.empty_like(labels)
        halves = torch.from_numpy(permutation(self.seed, 2, len(labels))).chunk(2)
        for learnt, asked in (halves, halves[::-1]):
            classifier = fit_classifier(features[learnt], labels[learnt], int(labels.max()) + 1, WEIGHT_DECAY)
            answers[asked] = classifier.predict(features[asked])
        return answers

    def rank(self, seen: Seen) -> Number:
        """The effective rank, with an interval where there are images enough."""
        if len(seen.rows) < 2 * GROUPS:
            return {"value": effective_rank(seen.rows)}
        order = permutation(self.seed, 1, len(seen.rows))
        return asdict(jackknife_interval(lambda rows: effective_rank(seen.rows[rows]), order))


def seen_by(
    made: Iterable[tuple[Candidate[Network], Network, str]],
    look: Callable[[Network], tuple[Tensor, Tensor, np.ndarray]],
    images: Images,
    drawn: np.ndarray,
) -> tuple[list[Seen], Tensor | None]:
    """Each network's features of the images at `drawn` (n,), and the labels (n,) of these, if they have any.

    A network is looked at for features (n, D) of middle crops and of views, and for which images could be read (n,):
    those that one could not be shown are left out of all.
    """
    found, readable = [], np.ones(len(drawn), bool)
    for candidate, network, digest in made:
        say(f"Verdict: {len(drawn)} of {len(images)} images, seen by {candidate.name}.")
        rows, views, read = look(network)
        readable &= read
        found.append(Seen(candidate.name, digest, rows, views, candidate.images))
    kept = torch.from_numpy(np.flatnonzero(readable))
    labels = None if images.labels is None else torch.from_numpy(np.asarray(images.labels)[drawn]).long()[kept]
    return [replace(one, rows=one.rows[kept], views=one.views[kept]) for one in found], labels


def drawn_once(images: Images, seed: int, stream: int, count: int) -> np.ndarray:
    """Rows of at most so many images, in order, drawn by the seed; of those that are copies of one another, one."""
    drawn = np.sort(permutation(seed, stream, len(images))[:count])
    return first_decides(lambda: without_copies(images, drawn))


def images_asked(count: int, shown: int) -> int:
    """The number of images to ask about, of so many, after a run that was shown images so many times."""
    return min(count, MOST, max(FEWEST, round(SHARE * shown / COST)))


def compared(own: Seen, others: Sequence[Seen], question: Question, about: dict[str, Any]) -> dict[str, Any]:
    """The numbers of each network, the backbone's own first, and its gain over each other, as results.json has them."""
    answers = question.correct(own)
    networks = []
    for seen in (own, *others):
        right = answers if seen is own else question.correct(seen)
        numbers: dict[str, Number] = {
            name: proportion(int(found.sum()), len(found)) for name, found in right.items()
        } | {"rank": question.rank(seen)}
        gains = {name: asdict(paired_gain(right[name], answers[name])) for name in right} if seen is not own else {}
        told = {"name": seen.name, "weights_sha256": seen.weights_sha256, "features": seen.rows.shape[1]}
        networks.append(told | ({"images": seen.images} if seen.images else {}) | {"numbers": numbers, "gain": gains})
    labelled = question.labelled
    return {
        "images": len(own.rows),
        **about,
        "k": K,
        "probe": {"weight_decay": WEIGHT_DECAY, "halves": 2},
        "labelled": 0 if labelled is None else len(labelled),
        "networks": networks,
    }
