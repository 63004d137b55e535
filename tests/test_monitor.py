"""The measurements of a run: the spread of its features, and k-NN where there are labels."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from tinted import Tints
from torch import Tensor

from ssl_backbones import shares
from ssl_backbones.data import Images
from ssl_backbones.metrics import knn_accuracy
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.train import monitor as monitor_module
from ssl_backbones.train.judge import Measured
from ssl_backbones.train.monitor import Monitor


def colours(images: Images, indices: np.ndarray) -> Tensor:
    """An embedding in which red is far from green."""
    assert images.labels is not None
    spread = torch.from_numpy(indices).double() / 100
    red = torch.from_numpy(images.labels[indices]).double()
    return torch.stack([red, 1 - red, spread], 1).float()


def test_a_monitor_without_labels_tells_the_spread() -> None:
    monitor = Monitor(Tints(40), None, Monitoring(), seed=0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(40, 4, generator=generator)
    measured = monitor.measure(lambda images, indices: drawn[indices], lambda images, indices: -drawn[indices])
    assert measured.correct is None
    assert measured.scalars.keys() == {"std", "rank", "retrieval"}
    assert measured.scalars["retrieval"] == 0
    assert measured.neighbours is not None
    assert measured.neighbours.shape == (40, 10)
    assert 0.8 < measured.scalars["std"] < 1.2
    assert 3 < measured.scalars["rank"] < 4.01
    assert monitor.numbers(measured, measured).keys() == {
        *("std before", "std", "rank before", "rank", "retrieval before", "retrieval")
    }
    assert monitor.about(measured) == {}


def test_a_monitor_holds_the_images_against_one_another() -> None:
    labels = [number % 2 for number in range(30)]
    monitor = Monitor(Tints(30, labels), None, Monitoring(k=3, bank=20), seed=0)
    assert len(monitor.bank) == 20
    assert (np.diff(monitor.bank) > 0).all()
    measured = monitor.measure(colours, colours)
    assert measured.scalars["knn"] == 1
    numbers, about = monitor.numbers(measured, measured), monitor.about(measured)
    assert (numbers["knn"]["of"], numbers["knn"]["k"], numbers["knn gain"]["value"]) == (20, 3, 0)
    assert (about["bank"], about["queries"]) == ({"images": 20}, {"images": 20})
    assert about["kind"] == "each image against the others"
    alone = torch.eye(30)
    assert monitor.measure(lambda _, rows: alone[rows], lambda _, rows: alone[rows]).scalars["knn"] == pytest.approx(
        knn_accuracy(
            alone[monitor.bank],
            torch.tensor(labels)[monitor.bank],
            alone[monitor.bank],
            torch.tensor(labels)[monitor.bank],
            k=3,
            exclude_self=True,
        )
    )


def test_a_monitor_asks_the_validation_images() -> None:
    train, validation = Tints(20, [0] * 14 + [1] * 6), Tints(8, [0, 1, 1, 1, 1, 1, -1, -1])
    monitor = Monitor(train, validation, Monitoring(k=3), seed=0)
    measured = monitor.measure(colours, colours)
    assert measured.correct is not None
    assert measured.correct.tolist() == [True] * 6
    about = monitor.about(measured)
    assert about["chance"] == pytest.approx(5 / 6)
    assert (about["queries"], about["kind"]) == ({"images": 6}, "held-out queries")
    assert monitor.numbers(measured, measured)["knn"]["of"] == 6


def test_only_labelled_images_are_asked_about() -> None:
    labelled, unlabelled, unknown = Tints(8, [0, 1] * 4), Tints(9), Tints(10, [-1] * 10)
    assert Monitor(unlabelled, labelled, Monitoring(), 0).bank_images is labelled
    assert Monitor(labelled, unlabelled, Monitoring(), 0).query_images is None
    assert Monitor(labelled, unknown, Monitoring(), 0).query_images is None
    assert not Monitor(unknown, None, Monitoring(), 0).labelled
    some = Monitor(Tints(6, [-1, 0, 1, 0, 1, -1]), None, Monitoring(k=1), 0)
    assert some.measure(colours, colours).correct.tolist() == [True] * 4


def test_few_labels_among_many_images_come_into_the_bank() -> None:
    labels = [-1] * 60
    labels[7], labels[20], labels[41] = 0, 1, 0
    few = Monitor(Tints(60, labels), None, Monitoring(k=1, bank=5), 0)
    assert few.labelled
    assert {7, 20, 41} <= {*few.bank.tolist()}
    assert few.measure(colours, colours).correct.tolist() == [True, False, True]
    labels[20] = labels[41] = -1
    alone = Monitor(Tints(60, labels), None, Monitoring(k=1, bank=5), 0)
    assert not alone.labelled, "one labelled image has nobody to be told by"
    assert alone.measure(colours, colours).correct is None


def test_answers_to_other_questions_are_not_compared() -> None:
    train, validation = Tints(20, [0, 1] * 10), Tints(8, [0, 1] * 4)
    asked = Monitor(train, validation, Monitoring(k=3), 0).question()
    assert asked == Monitor(train, validation, Monitoring(k=3, knn_every=1), 0).question()
    for other in (
        Monitor(train, validation, Monitoring(k=4), 0),
        Monitor(train, validation, Monitoring(k=3, bank=5), 0),
        Monitor(train, Tints(8, [1, 0] * 4), Monitoring(k=3), 0),
        Monitor(train, None, Monitoring(k=3), 0),
    ):
        assert other.question() != asked


def test_an_image_is_sought_among_all_by_its_view() -> None:
    images = Tints(700)
    monitor = Monitor(images, None, Monitoring(), seed=3)
    assert (len(monitor.bank), len(monitor.sought)) == (700, 512)
    places = torch.linspace(0, 1.5, 700).double()
    arc = torch.stack([places.cos(), places.sin()], 1).float()
    asked = []

    def nearly(images: Images, indices: np.ndarray) -> Tensor:
        asked.append(indices)
        return arc[(indices + (indices % 4 == 0)).clip(0, 699)]

    measured = monitor.measure(lambda _, rows: arc[rows], nearly)
    assert np.array_equal(asked[0], monitor.bank[monitor.sought])
    assert measured.scalars["retrieval"] == pytest.approx((asked[0] % 4 != 0).mean())
    number = monitor.numbers(measured, measured)["retrieval"]
    assert (number["of"], number["among"]) == (512, 700)
    assert number["low"] < number["value"] == measured.scalars["retrieval"] < number["high"]


def test_a_measurement_tells_the_neighbours_that_stayed() -> None:
    first = Measured({"std": 1.0}, neighbours=torch.tensor([[0, 1], [2, 3]]))
    second = Measured({"std": 1.0}, neighbours=torch.tensor([[1, 5], [2, 3]]))
    assert second.beside(first).scalars == {"std": 1.0, "kept": 0.75}
    assert second.beside(None).scalars == second.beside(Measured({})).scalars == {"std": 1.0}
    assert Measured({}).beside(first).scalars == {}
    assert second.beside(Measured({}, neighbours=torch.zeros(3, 2))).scalars == {"std": 1.0}


@pytest.mark.parametrize("queries", [None, 13], ids=["one another", "validation"])
@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_processes_share_the_queries_and_answer_alike(
    world_size: int, queries: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [number % 3 for number in range(31)]
    validation = None if queries is None else Tints(queries, labels[:queries])
    monitor = Monitor(Tints(31, labels), validation, Monitoring(k=3), seed=0)
    drawn = torch.randn(2, 31, 6, generator=torch.Generator().manual_seed(0))

    def features(images: Images, rows: np.ndarray) -> Tensor:
        return drawn[int(images is validation)][rows]

    alone = monitor.measure(features, features)
    assert alone.correct is not None
    named: list[Tensor] = []
    monkeypatch.setattr(shares, "world_size", lambda: world_size)
    for collect in (True, False):  # each process's own answers first, then what all of them make of these
        for rank in range(world_size):
            monkeypatch.setattr(shares, "rank", lambda rank=rank: rank)
            gathered = (lambda own: named.append(own) or own) if collect else (lambda own: torch.cat(named))
            monkeypatch.setattr(monitor_module, "gather", gathered)
            if collect:
                with suppress(RuntimeError):  # its own answers are too few for all queries
                    monitor.measure(features, features)
                continue
            together = monitor.measure(features, features)
            assert together.correct is not None
            assert torch.equal(together.correct, alone.correct)
            assert together.scalars == alone.scalars
    count = len(alone.correct)
    assert {len(own) for own in named} == {-(-count // world_size)}
