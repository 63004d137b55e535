"""Baselines in two processes: what one of them cannot have is left out by both, with the same sentence."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from two_processes import run_two_processes

from ssl_backbones.catalogue.at_hand import Candidate
from ssl_backbones.catalogue.start import StartError
from ssl_backbones.distributed import rank
from ssl_backbones.evaluate import beside_baselines
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.train import baselines
from ssl_backbones.train.baselines import at_hand, made
from ssl_backbones.views import CenterCrop

FAILURES = {
    "a file that is gone": FileNotFoundError(2, "No such file", "/there/model.safetensors"),
    "a file without a name": FileNotFoundError("nothing under that name"),
    "weights that are refused": PretrainedWeightsError("the file kept in 'there' is not what was fetched"),
}


def network_or(failure: Exception) -> nn.Module:
    """A network in the first process; the other one fails."""
    if rank() == 1:
        raise failure
    return nn.Identity()


def skipped(failure: Exception, patch: pytest.MonkeyPatch) -> list[str]:
    """The sentences of this process on weights that both have found, and that fail in one."""
    said: list[str] = []
    patch.setattr(baselines, "say", said.append)
    patch.setattr(baselines, "weights_at_hand", lambda *asked: Candidate("kept", lambda: network_or(failure)))
    found = at_hand("resnet8", "")
    assert found is not None
    assert list(made([found], lambda network: "")) == []
    return said


def offered(names: list[str], patch: pytest.MonkeyPatch) -> str:
    """The weights that are offered where each process finds those of its own name, "" for none."""
    own = names[rank()]
    patch.setattr(baselines, "weights_at_hand", lambda *asked: Candidate(own, nn.Identity) if own else None)
    found = at_hand("resnet8", "")
    return found.name if found else ""


def refusal(patch: pytest.MonkeyPatch) -> str:
    """The sentence that both hear where one cannot look for weights."""
    patch.setattr(baselines, "weights_at_hand", lambda *asked: network_or(PretrainedWeightsError("no such index")))
    with pytest.raises(Refusal) as error:
        at_hand("resnet8", "")
    return str(error.value)


def evaluated_beside(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The networks that are compared where one process cannot open them with other weights, and all that is said."""
    said: list[str] = []
    patch.setattr(baselines, "say", said.append)
    crop = CenterCrop(32, 1.0, "bilinear", (0.5,) * 3, (0.2,) * 3)

    def opened(*given: Any, **how: Any) -> EvaluatedModel:
        network = network_or(StartError("no such start"))
        return EvaluatedModel("own", network, None, torch.device("cpu"), crop, "")

    patch.setattr(beside_baselines, "open_model", opened)
    asked: Any = Mock()
    asked.model.name, asked.options.random, asked.records = "own", False, ({"init": "a start"}, {})
    names = [candidate.name for candidate, *_ in made(beside_baselines.candidates(asked), lambda network: "")]
    return {"names": names, "said": said}


FOUND = {"kept kept": "kept", "kept other": "", "kept ": "", " kept": "", " ": ""}


def everything(rank: int) -> dict[str, Any]:
    """The answers of a process; two take long to begin."""
    with pytest.MonkeyPatch.context() as patch:
        return {
            "skipped": {name: skipped(failure, patch) for name, failure in FAILURES.items()},
            "offered": {names: offered(names.split(" "), patch) for names in FOUND},
            "refusal": refusal(patch),
            "beside": evaluated_beside(patch),
        }


@pytest.fixture(scope="module")
def ranks() -> list[Any]:
    """The answers of either of two processes."""
    return run_two_processes(everything)


@pytest.mark.parametrize("name", FAILURES)
def test_weights_that_one_process_cannot_make_are_skipped_by_both(name: str, ranks: list[Any]) -> None:
    one, other = (rank["skipped"][name] for rank in ranks)
    assert one == other
    (sentence,) = one
    assert sentence.startswith("Skipped the comparison with kept: ")
    assert str(FAILURES[name].args[-1]) in sentence


def test_weights_are_at_hand_where_both_processes_find_the_same(ranks: list[Any]) -> None:
    for answers in ranks:
        assert answers["offered"] == FOUND


def test_one_that_cannot_look_for_them_is_heard_by_both(ranks: list[Any]) -> None:
    assert [answers["refusal"] for answers in ranks] == ["no such index"] * 2


def test_networks_that_one_process_cannot_open_are_skipped_by_both(ranks: list[Any]) -> None:
    skipped = [
        f"Skipped the comparison with {name}: no such start" for name in ("random weights", "its start, a start")
    ]
    assert [answers["beside"] for answers in ranks] == [{"names": ["own"], "said": skipped}] * 2
