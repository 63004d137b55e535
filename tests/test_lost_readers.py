"""A process that reads images and dies ends the run in a sentence, however torch comes to hear of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from warm_processes import run_program

from ssl_backbones.data.batches import Batch
from ssl_backbones.train import loader as loader_module
from ssl_backbones.train.loader import Loader, LostReaderError, readers_alive


class Slow:
    """As many images as it takes."""

    images = SimpleNamespace(shards=None)

    def __len__(self) -> int:
        return 4000

    def __getitem__(self, request: object) -> Batch:
        return Batch({"pixels": torch.ones(3)}, {})


KILLED = """
import multiprocessing, time
from types import SimpleNamespace
import torch
from ssl_backbones.train.loader import Loader
from ssl_backbones.data.batches import Batch

class Slow:
    images = SimpleNamespace(shards=None)

    def __len__(self):
        return 4000

    def __getitem__(self, request):
        time.sleep(0.01)
        return Batch({"pixels": torch.ones(3)}, {})

steps = Loader(Slow(), 2, seed=0, workers=2).steps(0, 2000)
next(steps)
try:
    multiprocessing.active_children()[0].kill()
    for _ in steps:
        pass
except RuntimeError as error:
    print(error)
"""


def test_a_worker_that_is_killed_ends_the_epoch() -> None:
    """In a process of its own: torch raises the error wherever the main thread happens to be."""
    done = run_program(KILLED)
    assert re.search("worker .*(killed|exited)|ended in the middle", done.stdout + done.stderr), done


def test_the_death_of_a_reader_is_told_in_a_sentence() -> None:
    for error in (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), LostReaderError("it ended")):
        with (
            pytest.raises(LostReaderError, match=r"is gone \((.*killed by signal: Killed|it ended);.*workers.*after 3"),
            readers_alive(lambda: "after 3 steps"),
        ):
            raise error
    with pytest.raises(RuntimeError, match="another matter"), readers_alive(lambda: ""):
        raise RuntimeError("another matter")


@pytest.mark.parametrize("broken", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_reader_that_dies_with_a_batch_in_hand_is_told_of(broken: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> Iterator[Any]:
        yield Batch({"pixels": torch.ones(3)}, {})
        raise broken

    monkeypatch.setattr(loader_module, "DataLoader", breaks)
    with pytest.raises(LostReaderError, match="in the middle of a batch"):
        list(Loader(Slow(), 2, seed=0, workers=1).steps(0, 2000))


def test_an_end_of_file_in_the_images_own_code_keeps_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> Iterator[Any]:
        yield Batch({"pixels": torch.ones(3)}, {})
        raise EOFError("Caught EOFError in DataLoader worker process 0.")

    monkeypatch.setattr(loader_module, "DataLoader", breaks)
    with pytest.raises(EOFError, match="Caught"):
        list(Loader(Slow(), 2, seed=0, workers=1).steps(0, 2000))


def test_an_end_of_file_without_readers_is_the_images_own() -> None:
    class Torn(Slow):
        def __getitem__(self, request: object) -> Batch:
            raise EOFError("no data left")

    with pytest.raises(EOFError, match="no data left"):
        list(Loader(Torn(), 2, seed=0, workers=0).steps(0, 2000))
