"""A small training that is stopped or killed ends as one that never was, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import evaluated, labelled_images, refusal
from runs import Killed, asked_to_stop, forget, killed
from two_processes import run_two_processes

from ssl_backbones.evaluate.classification import head_training
from ssl_backbones.evaluate.protocols import mlp
from ssl_backbones.runs import manifest
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.train.processes import meet

EPOCHS = 5
Weights = dict[str, torch.Tensor]


@contextmanager
def in_epoch(epoch: int, happens: Callable[[], None]) -> Iterator[None]:
    """Something happens when an epoch begins, counted from 0."""
    order = head_training.permutation

    def then(seed: int, at: int, size: int) -> Any:
        if at == epoch:
            happens()
        return order(seed, at, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_training, "permutation", then)
        yield


def trained(folder: Path | None, layers: Any = 2) -> Weights:
    """The weights of a head after five epochs of four steps."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (50,), generator=stream)
    rows = torch.nn.functional.one_hot(labels, 4) + torch.randn(50, 4, generator=stream)
    options = mlp.Options(
        model="", data="", out="", epochs=EPOCHS, layers=layers, lr=0.05, train_batch_size=13, weight_decay=0.01
    )
    return mlp.train(rows, labels, 4, options, folder).state_dict()


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is saved."""
    monkeypatch.setattr(head_training, "EVERY", -1.0)


@pytest.mark.parametrize("layers", [1, 2])
def test_stopped_and_gone_on_with_is_never_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layers: int
) -> None:
    whole = trained(None, layers)
    for epoch in (1, 3):
        with in_epoch(epoch, asked_to_stop), pytest.raises(SystemExit, match="143"):
            trained(tmp_path, layers)
        assert f"Stopped after epoch {epoch + 1} of 5; the same command goes on" in capsys.readouterr().out
    assert [step for step, _ in manifest.listed(tmp_path)] == [4, 2]
    assert not list(tmp_path.glob("**/*.p*"))  # weights are read without pickle
    seen: list[int] = []
    with in_epoch(4, lambda: seen.append(4)), in_epoch(3, lambda: seen.append(3)):
        assert same(trained(tmp_path, layers), whole)
    assert seen == [4]


@pytest.mark.usefixtures("at_once")
def test_killed_in_any_epoch_it_comes_to_the_same_end(tmp_path: Path) -> None:
    whole = trained(None)
    for epoch in range(EPOCHS):
        with in_epoch(epoch, killed), pytest.raises(Killed):
            trained(tmp_path)
        assert [step for step, _ in manifest.listed(tmp_path)][:1] == ([epoch] if epoch else [])
    assert same(trained(tmp_path), whole)


def test_it_is_saved_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path)
    assert not manifest.listed(tmp_path)
    clock = iter(np.arange(100) * 31.0)
    monkeypatch.setattr(head_training, "monotonic", lambda: float(next(clock)))
    trained(tmp_path)
    assert [step for step, _ in manifest.listed(tmp_path)] == [4, 2]


@pytest.mark.usefixtures("at_once")
def test_what_was_torn_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = trained(None)
    with in_epoch(4, killed), pytest.raises(Killed):
        trained(tmp_path)
    torn = tmp_path / manifest.folder_name(4) / "module.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    assert same(trained(tmp_path), whole)
    assert "was not used: step-00000004: module.safetensors has" in capsys.readouterr().out


def test_the_signals_do_again_what_they_did_before() -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with in_epoch(2, killed), pytest.raises(Killed):
        trained(None)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = labelled_images(tmp_path / "photos")
    whole = evaluated("mlp", data, tmp_path / "whole")
    out = tmp_path / "stopped"
    with in_epoch(1, asked_to_stop), pytest.raises(SystemExit, match="143"):
        evaluated("mlp", data, out)
    assert not (out / "results.json").exists()
    assert "options.lr is 0.001 there and 0.1 here" in refusal(capsys, "mlp", data, out, "--lr", "0.1")
    again = evaluated("mlp", data, out)
    assert "Going on after epoch 2." in capsys.readouterr().out
    assert again["numbers"] == whole["numbers"]
    assert again["per_class"] == whole["per_class"]
    assert not (out / "checkpoints").exists()


def test_no_whole_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / manifest.folder_name(2)).mkdir()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        trained(tmp_path)


def on_a_rank(rank: int, folder: str) -> Weights:
    """The head that two processes come to, the second told to stop on the way."""
    meet()
    with in_epoch(2, asked_to_stop if rank else lambda: None), pytest.raises(SystemExit, match="143"):
        trained(Path(folder))
    answer = trained(Path(folder))
    forget()
    return answer


def test_two_processes_stop_after_the_same_epoch(tmp_path: Path) -> None:
    ended = run_two_processes(on_a_rank, str(tmp_path))
    assert [step for step, _ in manifest.listed(tmp_path)] == [3]
    assert all(same(each, trained(None)) for each in ended)
