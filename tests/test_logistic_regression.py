"""Logistic regression against scikit-learn's, and against what makes a point the least of a convex function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_metrics import features
from torch.nn.functional import cross_entropy

from ssl_backbones.evaluate.protocols.logistic import held_out_part
from ssl_backbones.metrics import logistic_regression
from ssl_backbones.metrics.logistic_regression import fit_classifier


@pytest.mark.parametrize("weight_decay", [1.0, 1e-2, 1e-4])
def test_it_is_scikit_learns(weight_decay: float) -> None:
    rows, labels = features(0, 400, 12, 5)
    asked, _ = features(1, 300, 12, 5)
    classifier = fit_classifier(rows, labels, 5, weight_decay)
    oracle = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / (weight_decay * len(rows)), tol=1e-8, max_iter=5000)
    ).fit(rows.double().numpy(), labels.numpy())
    assert classifier.converged
    ours = classifier.logits(asked).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, oracle.predict_proba(asked.double().numpy()), atol=1e-4)
    assert classifier.predict(asked).tolist() == oracle.predict(asked.double().numpy()).tolist()


def test_the_gradient_vanishes_where_it_ends() -> None:
    rows, labels = features(3, 200, 6, 3)
    found = fit_classifier(rows, labels, 3, 0.05)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    x = rows.double()
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    loss = cross_entropy(x @ weight.T + bias, labels) + 0.05 / 2 * weight.square().sum()
    for slope in torch.autograd.grad(loss, [weight, bias]):
        assert slope.abs().max() < 1e-5


def test_parts_a_start_and_scale_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = features(4, 150, 6, 3)
    whole = fit_classifier(rows, labels, 3, 0.01)
    scaled = fit_classifier(1000 * rows + 5, labels, 3, 0.01)
    torch.testing.assert_close(scaled.logits(1000 * rows + 5), whole.logits(rows), atol=1e-3, rtol=0)
    started = fit_classifier(rows, labels, 3, 0.01, start=fit_classifier(rows, labels, 3, 1.0))
    monkeypatch.setattr(logistic_regression, "ROWS", 31)
    for other in (started, fit_classifier(rows, labels, 3, 0.01)):
        torch.testing.assert_close(other.logits(rows), whole.logits(rows), atol=1e-3, rtol=0)


def test_a_feature_that_does_not_vary_does_no_harm() -> None:
    rows, labels = features(5, 100, 4, 3)
    with_constant = torch.cat([rows, torch.full((100, 1), 0.1), torch.zeros(100, 1)], dim=1)
    assert (
        fit_classifier(with_constant, labels, 3, 0.01).predict(with_constant).tolist()
        == fit_classifier(rows, labels, 3, 0.01).predict(rows).tolist()
    )


def test_separable_classes_are_told_apart_and_shuffled_ones_are_not() -> None:
    rows, labels = features(6, 600, 8, 4)
    apart = torch.nn.functional.one_hot(labels, 4).float()
    assert (fit_classifier(apart, labels, 4, 1e-4).predict(apart) == labels).all()
    shuffled = labels[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    right = fit_classifier(rows[:300], shuffled[:300], 4, 0.1).predict(rows[300:]) == shuffled[300:]
    assert abs(right.double().mean().item() - 0.25) < 3 * (0.25 * 0.75 / 300) ** 0.5


def test_a_part_is_held_out_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 10, 4])
    part = held_out_part(labels, 0.2, 0)
    assert np.bincount(labels[part], minlength=3).tolist() == [10, 2, 0]
    assert not np.array_equal(part, held_out_part(labels, 0.2, 1))
    assert np.array_equal(part, held_out_part(labels, 0.2, 0))
