"""The loader: the workers that make the batches."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from ssl_backbones.checks import check
from ssl_backbones.cores import cores_here
from ssl_backbones.data.batches import Batch, BatchDataset
from ssl_backbones.data.order import Order, Requests
from ssl_backbones.data.parts import Request
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.waiting import Spent
from ssl_backbones.train.shared_arrays import arrays_shared

DIED = re.compile(r"DataLoader worker \(pid")
"""First words of torch when it hears that a worker is gone."""
MOST = 32
"""Workers for each core at most: more are a slip of the keyboard, and take all memory."""
MANY = 8
"""Workers beyond which each has one batch ready instead of two: together they have enough, in less memory."""


class WorkersError(Refusal, ValueError):
    """More reading processes than there is any use for."""


class LostReaderError(Refusal, RuntimeError):
    """A process that read images and is gone."""


class Loader:
    """The batches of a rank: alike for any number of workers, and from any step of an epoch on."""

    def __init__(
        self,
        dataset: BatchDataset,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """`batch_size` counts all ranks and micro-batches; `pin_memory` is for batches that go to a CUDA device."""
        check(workers >= 0, "workers", workers, "at least 0")
        self.dataset = dataset
        self.order = Order(len(dataset), batch_size, seed, rank, world_size, accumulation, dataset.images.shards)
        self.workers = workers
        self.pin_memory = pin_memory
        self.spent = Spent()
        """With the seconds that batches were waited for; what this process makes itself is waited for too."""

    @classmethod
    def of(cls, run: Run, dataset: BatchDataset, accelerator: Accelerator) -> Loader:
        """This process's loader of a run; WorkersError for more reading processes than there is any use for."""
        return cls(
            dataset,
            run.batch_size,
            run.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            accumulation=run.parts,
            workers=0 if dataset.images.in_process else reading_workers(run.workers),
            pin_memory=accelerator.device.type == "cuda",
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def steps(self, first: int, last: int) -> Iterator[list[Batch]]:
        """Steps `first` to `last`, the last not among them, counted through all epochs; each its host batches.

        Nothing before `first` is decoded. The workers are started here once, with the dataset as it is now, and are
        gone when the iterator is exhausted, closed or forgotten.
        """
        batches = read_each(self.dataset, Requests(self.order, first, last), self.workers, self.pin_memory)
        for _ in range(first, last):
            began = time.perf_counter()
            with ends_by_words() if self.workers else nullcontext():
                step = [next(batches) for _ in range(self.order.accumulation)]
            self.spent.waiting += time.perf_counter() - began
            yield step


def read_each(
    dataset: BatchDataset, requests: Iterable[Request], workers: int, pin_memory: bool = False
) -> Iterator[Batch]:
    """The batches asked for, in order, made by so many processes; by this one for 0."""
    data_loader: DataLoader[Batch] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        collate_fn=keep,  # type: ignore[arg-type]
        pin_memory=pin_memory,
        worker_init_fn=obey_parent_alone,
        generator=torch.Generator().manual_seed(0),  # or it would draw from the global one
        prefetch_factor=(2 if workers <= MANY else 1) if workers else None,
    )
    with signals_waiting(), arrays_shared():
        return iter(data_loader)


def keep(batch: Batch) -> Batch:
    """The batch as it is."""
    return batch


@contextmanager
def ends_by_words() -> Iterator[None]:
    """Context manager: raise LostReaderError for a worker that dies while it hands over a batch."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        if str(error).startswith("Caught "):
            raise  # by the images' own code, in a worker that lives
        raise LostReaderError("it ended in the middle of a batch") from error


def is_lost_reader(error: Exception) -> bool:
    """True for the error by which torch or the loader tells that a reading process is gone."""
    return isinstance(error, LostReaderError) or (isinstance(error, RuntimeError) and bool(DIED.match(str(error))))


@contextmanager
def readers_alive(progress: Callable[[], str]) -> Iterator[None]:
    """Context manager: raise LostReaderError for a reading process that dies, with the progress of the run."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_reader(error):
            raise
        raise LostReaderError(
            f"a process that reads images is gone ({str(error).strip().rstrip('.')}; where memory was short, fewer "
            f"--workers take less), {progress()}"
        ) from error


@contextmanager
def signals_waiting() -> Iterator[None]:
    """Context manager: keep signals for the run from workers that start here until they obey their parent alone."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_alone(worker: int) -> None:
    """Leave signals meant for the run to the process that leads it: it needs its workers to finish the step.

    A terminal or a cluster signals the whole group. SIGTERM ends a worker only when its own parent sent it.
    """
    parent = multiprocessing.parent_process()
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if parent is None or not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


def reading_workers(asked: int | None) -> int:
    """Number of processes that read images beside this one: the one asked for, or a core each but for its own.

    WorkersError for more than a machine has any use for.
    """
    if asked is not None:
        if asked > MOST * cores_here():
            raise WorkersError(
                f"workers is {asked}, and {cores_here()} cores have no use for more than {MOST * cores_here()} reading "
                "processes: lower --workers"
            )
        return asked
    return cores_here() - 1
