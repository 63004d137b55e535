"""The parts that a run is made of, each for itself: compute, window, monitor, embed, processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import compute
import embed as embed_module
import loader as loader_module
import loop as loop_module
import numpy as np
import processes
import pytest
import torch
from compute import Compute, PrecisionError, available, check_precision, choose, laid_out, seconds_per_step
from conftest import ROOT
from embed import embed, to_device
from hypothesis import given
from hypothesis import strategies as st
from monitor import Monitor
from PIL import Image
from processes import OtherRankError, StopSignals, TrackerError, accelerator_of, check_trackers, first_decides, meet
from recipe import Monitoring
from runs import forget
from small_methods import CONFIGS, batch_of, small_method
from torch import Tensor, nn
from two_processes import run_two_processes
from window import Window

import ssl_backbones
from ssl_backbones.data import Batches, Images, UnreadableImageError
from ssl_backbones.methods import MethodConfig
from ssl_backbones.metrics import knn_accuracy
from ssl_backbones.views import CenterCrop

CPU = torch.device("cpu")


class Tints(Images):
    """Images of one colour each; the labels are given."""

    def __init__(self, count: int, labels: Sequence[int] | None = None, unreadable: Sequence[int] = ()) -> None:
        self.keys = [f"{number:02}.png" for number in range(count)]
        self.labels = None if labels is None else np.array(labels, np.int64)
        self.classes = ("red", "green") if labels is not None else ()
        self.fingerprint = f"{count} {labels}"
        self.unreadable = unreadable

    def __getitem__(self, index: int) -> Image.Image:
        if index in self.unreadable:
            raise UnreadableImageError(f"{self.keys[index]} is torn")
        return Image.new("RGB", (8, 8), (index, 255 - index, (index * 37) % 256))


def tints(count: int, **more: Any) -> Batches:
    return Batches(Tints(count, **more), CenterCrop(8), seed=0)


class Colours(nn.Module):
    """A backbone whose features are the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(images).mean((2, 3))
        return features


# Compute


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_trying_leaves_the_method_as_it_was(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    batch = batch_of(method)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    chosen = choose(method, batch, CPU)
    assert chosen.tried.keys() == {"fp32 contiguous", "fp32 channels last", "bf16 contiguous", "bf16 channels last"}
    assert all(0 < seconds < 30 for seconds in chosen.tried.values())
    assert f"{chosen.precision}, {chosen.layout.replace('_', ' ')} (a step took: fp32 contiguous" in str(chosen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert method.training
    method(batch)["loss"].backward()
    method.on_step_end(0.0)


def test_the_fastest_way_is_taken_if_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {("fp32", "contiguous"): 1.0, ("fp32", "channels_last"): 0.95}
    seconds |= {("bf16", "contiguous"): 2.0, ("bf16", "channels_last"): 0.97}
    monkeypatch.setattr(compute, "seconds_per_step", lambda *way: seconds[way[3:]])
    method, batch = nn.Identity(), torch.zeros(1)
    assert choose(method, batch, CPU) == Compute("fp32", "contiguous", choose(method, batch, CPU).tried)
    seconds["bf16", "channels_last"] = 0.8
    assert choose(method, batch, CPU).precision == "bf16"
    assert choose(method, batch, CPU, precision="fp32").layout == "contiguous"
    assert set(choose(method, batch, CPU, layout="contiguous").tried) == {"fp32 contiguous", "bf16 contiguous"}


def test_nothing_is_tried_where_nothing_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "seconds_per_step", lambda *way: pytest.fail("it was tried"))
    chosen = choose(nn.Identity(), torch.zeros(1), CPU, "bf16", "channels_last")
    assert chosen == Compute("bf16", "channels_last", {})
    assert str(chosen) == "bf16, channels last"


def test_a_trial_runs_in_the_precision_and_the_layout() -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    class Looking(nn.Conv2d):
        def forward(self, images: Any) -> Any:
            out = super().forward(images)
            nhwc = torch.channels_last
            seen.append((out.dtype, images.is_contiguous(memory_format=nhwc) and self.weight.stride(1) == 1))
            return {"loss": out.float().mean()}

    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for layout in ("contiguous", "channels_last"):
            seen.clear()
            seconds_per_step(Looking(3, 5, 3), torch.zeros(2, 3, 9, 9), CPU, precision, layout)  # type: ignore[arg-type]
            assert set(seen) == {(dtype, layout == "channels_last")}


def test_a_precision_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    with pytest.raises(PrecisionError, match="this cpu device does not train in fp16; use bf16"):
        check_precision("fp16", CPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(PrecisionError, match="this cuda device does not train in bf16; use fp16"):
        choose(nn.Identity(), None, cuda, "bf16")
    assert available(cuda) == ("fp16",)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert available(cuda) == ("bf16",)
    assert check_precision("fp32", CPU) == "fp32"
    assert available(CPU) == ("fp32", "bf16")


def test_a_layout_is_given_to_images_wherever_they_are() -> None:
    images, levels = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3)
    found = laid_out({"views": [images, (images, levels)], "name": "x"}, "channels_last")
    assert found["views"][0].is_contiguous(memory_format=torch.channels_last)
    assert found["views"][1][0].is_contiguous(memory_format=torch.channels_last)
    assert found["views"][1][1] is levels
    assert found["name"] == "x"
    assert laid_out(found, "contiguous")["views"][0].is_contiguous()


# Window

numbers = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=9), st.integers(0, 9))
def test_a_window_tells_means_and_goes_on_where_it_was(steps: list[list[float]], cut: int) -> None:
    window = Window(CPU)
    for number, (loss, chance) in enumerate(steps):
        if number == cut:  # through a checkpoint
            saved = window.names(), window.tensors()
            window = Window(CPU)
            window.load(*saved)
        window.add({"loss": torch.tensor(loss, requires_grad=True), "chance": chance})
        window.note({"lr": number / 10})
    means = window.close()
    assert list(means) == ["loss", "chance", "lr"]
    for name, values in zip(("loss", "chance"), zip(*steps, strict=True), strict=True):
        assert means[name] == pytest.approx(math.fsum(values) / len(steps), rel=1e-9, abs=1e-7)
    assert means["lr"] == (len(steps) - 1) / 10
    window.add({"loss": torch.tensor(3.0)})
    assert window.close() == {"loss": 3.0, "lr": means["lr"]}


def test_micro_batches_share_a_step() -> None:
    window = Window(CPU)
    for part in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(part)}, share=1 / 3)
    window.add({"loss": torch.tensor(5.0)})
    assert window.close()["loss"] == pytest.approx(4.0)


def test_a_window_does_not_lose_small_numbers_of_half_precision() -> None:
    window = Window(CPU)
    for _ in range(3000):
        window.add({"loss": torch.tensor(1.0, dtype=torch.bfloat16)})
    assert window.close()["loss"] == 1


# Embed


@pytest.mark.parametrize("workers", [0, 2])
def test_features_come_in_order_and_without_training(workers: int) -> None:
    backbone = Colours().train()
    backbone.norm.eval()  # a part that is kept still stays still
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    indices = np.array([5, 3, 3, 0, 11, 7, 2])
    features, unreadable = embed(backbone, tints(12), indices, CPU, batch_size=3, workers=workers)
    assert (features.shape, features.dtype, features.requires_grad, unreadable) == ((7, 3), torch.float32, False, {})
    one_by_one = [embed(backbone, tints(12), np.array([index]), CPU)[0] for index in indices]
    torch.testing.assert_close(features, torch.cat(one_by_one))
    assert (features[1] == features[2]).all()
    assert (features[0] != features[1]).any()
    assert torch.equal(torch.get_rng_state(), state)
    assert (backbone.training, backbone.norm.training) == (True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def signal_workers() -> None:
    """Let another process signal every worker, as a terminal or a cluster does that means the whole run."""
    pids = [str(child.pid) for child in multiprocessing.active_children()]
    for name in ("INT", "USR1", "TERM"):
        subprocess.run(["kill", f"-{name}", *pids], check=True)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this platform does not tell who sent a signal")
@pytest.mark.parametrize("module", [embed_module, loader_module], ids=lambda module: module.__name__)
def test_workers_that_have_just_begun_are_not_ended_by_signals(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(worker: int) -> None:
        time.sleep(0.6)
        obey_parent_alone(worker)

    obey_parent_alone = loader_module.obey_parent_alone
    monkeypatch.setattr(module, "obey_parent_alone", late)
    signalled = threading.Timer(0.3, signal_workers)
    signalled.start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    if module is embed_module:
        assert len(embed(Colours(), tints(12), np.arange(12), CPU, batch_size=3, workers=2)[0]) == 12
    else:
        assert len(list(loader_module.Loader(tints(12), 3, 0, workers=2).steps(0, 4))) == 4
    assert not signalled.is_alive()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mask


def test_half_precision_features_come_in_single() -> None:
    model = ssl_backbones.create_model("resnet8", num_classes=0)
    indices = np.arange(4)
    half, _ = embed(model, tints(4), indices, CPU, autocast=torch.autocast("cpu", torch.bfloat16))
    whole, _ = embed(model, tints(4), indices, CPU)
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    torch.testing.assert_close(half, whole, rtol=0.1, atol=0.1)


def test_photos_that_cannot_be_read_are_reported() -> None:
    features, unreadable = embed(Colours(), tints(9, unreadable=[4]), np.arange(9), CPU, batch_size=2)
    assert len(features) == 9
    assert unreadable == {"04.png": "04.png is torn"}


def test_a_backbone_that_fails_is_put_back() -> None:
    class Failing(Colours):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no")

    backbone = Failing()
    with pytest.raises(RuntimeError, match="no"):
        embed(backbone, tints(2), np.arange(2), CPU)
    assert backbone.training


def test_nested_content_moves_with_its_shape() -> None:
    content = {"a": [torch.zeros(1), (torch.ones(2), "text")], "b": 3}
    moved = to_device(content, torch.device("meta"))
    assert moved["a"][0].device.type == moved["a"][1][0].device.type == "meta"
    assert (moved["a"][1][1], moved["b"], type(moved["a"][1])) == ("text", 3, tuple)


# Monitor


def colours(images: Images, indices: np.ndarray) -> Tensor:
    """An embedding in which red is far from green."""
    assert images.labels is not None
    spread = torch.from_numpy(indices).double() / 100
    red = torch.from_numpy(images.labels[indices]).double()
    return torch.stack([red, 1 - red, spread], 1).float()


def test_a_monitor_without_labels_tells_the_spread() -> None:
    monitor = Monitor(Tints(40), None, Monitoring(), seed=0)
    generator = torch.Generator().manual_seed(0)
    measured = monitor.measure(lambda images, indices: torch.randn(len(indices), 4, generator=generator))
    assert measured.correct is None
    assert measured.scalars.keys() == {"std", "rank"}
    assert 0.8 < measured.scalars["std"] < 1.2
    assert 3 < measured.scalars["rank"] < 4.01
    assert monitor.results(measured, measured).keys() == {"std", "rank"}


def test_a_monitor_holds_the_images_against_one_another() -> None:
    labels = [number % 2 for number in range(30)]
    monitor = Monitor(Tints(30, labels), None, Monitoring(k=3, bank=20), seed=0)
    assert len(monitor.bank) == 20
    assert (np.diff(monitor.bank) > 0).all()
    measured = monitor.measure(colours)
    assert measured.scalars["knn"] == 1
    results = monitor.results(measured, measured)["knn"]
    assert (results["queries"], results["bank"], results["gain"]) == (20, 20, 0)
    assert results["protocol"] == "each image against the others"
    alone = torch.eye(30)
    assert monitor.measure(lambda _, indices: alone[indices]).scalars["knn"] == pytest.approx(
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
    measured = monitor.measure(colours)
    assert measured.correct is not None
    assert measured.correct.tolist() == [True] * 6
    results = monitor.results(measured, measured)["knn"]
    assert results["chance"] == pytest.approx(5 / 6)
    assert (results["queries"], results["protocol"]) == (6, "held-out queries")


def test_only_labelled_images_are_asked_about() -> None:
    labelled, unlabelled, unknown = Tints(8, [0, 1] * 4), Tints(9), Tints(10, [-1] * 10)
    assert Monitor(unlabelled, labelled, Monitoring(), 0).bank_images is labelled
    assert Monitor(labelled, unlabelled, Monitoring(), 0).query_images is None
    assert Monitor(labelled, unknown, Monitoring(), 0).query_images is None
    assert not Monitor(unknown, None, Monitoring(), 0).labelled
    some = Monitor(Tints(6, [-1, 0, 1, 0, 1, -1]), None, Monitoring(k=1), 0)
    assert some.measure(colours).correct.tolist() == [True] * 4


def test_answers_to_other_questions_are_not_compared() -> None:
    train, validation = Tints(20, [0, 1] * 10), Tints(8, [0, 1] * 4)
    asked = Monitor(train, validation, Monitoring(k=3), 0).question
    assert asked == Monitor(train, validation, Monitoring(k=3, knn_every=1), 0).question
    for other in (
        Monitor(train, validation, Monitoring(k=4), 0),
        Monitor(train, validation, Monitoring(k=3, bank=5), 0),
        Monitor(train, Tints(8, [1, 0] * 4), Monitoring(k=3), 0),
        Monitor(train, None, Monitoring(k=3), 0),
    ):
        assert other.question != asked


# Processes


def test_a_first_signal_is_noted_and_a_second_ends_the_process() -> None:
    waiting = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from processes import StopSignals\n"
        "stop = StopSignals()\nprint(stop.agreed(), flush=True)\n"
        "while stop.agreed() is None: time.sleep(0.01)\n"
        "print(stop.agreed(), flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", waiting, str(ROOT / "training")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "None\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "143\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)], ids=str
)
def test_signals_are_what_they_were_afterwards(number: signal.Signals, code: int) -> None:
    before = {name: signal.getsignal(name) for name in processes.STOPPING}
    stop = StopSignals()
    assert stop.agreed() is None
    assert signal.getsignal(number) == stop.note
    signal.raise_signal(number)
    assert stop.agreed() == code
    assert {name: signal.getsignal(name) for name in processes.STOPPING} == before
    stop = StopSignals()
    stop.restore()
    assert {name: signal.getsignal(name) for name in processes.STOPPING} == before


def test_a_tracker_is_there_or_refused() -> None:
    check_trackers(("tensorboard",))
    check_trackers(("all",))
    check_trackers(())
    with pytest.raises(TrackerError, match=r"'clearml' cannot track the run \(its package .* ready here: tensorboard"):
        check_trackers(("tensorboard", "clearml"))
    with pytest.raises(TrackerError, match="knows no such tracker"):
        check_trackers(("tensorbored",))


def test_the_launchers_settings_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    forget()
    accelerator = accelerator_of("fp32", (), str(tmp_path))
    found = accelerator.gradient_accumulation_steps, accelerator.mixed_precision
    forget()
    assert found == (1, "no")


def test_one_process_reads_beside_each_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert loop_module.reading_workers(None) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert loop_module.reading_workers(None) == 0
    assert loop_module.reading_workers(7) == 7


def on_two(rank: int) -> dict[str, Any]:
    """What the parts do where there are two processes."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    assert meet().type == "cpu"
    decided = first_decides(lambda: f"by {rank}")
    refused = ""
    try:
        first_decides(lambda: [][rank])
    except (IndexError, OtherRankError) as error:
        refused = f"{type(error).__name__}: {error}"
    stop = StopSignals()
    quiet = stop.agreed()
    if rank == 1:
        signal.raise_signal(signal.SIGINT)
    told = stop.agreed()
    stop.restore()
    window = Window(CPU)
    window.add({"loss": torch.tensor(float(rank)), "chance": 2.0})
    backbone = Colours()
    backbone.norm.running_mean += rank  # the first process's are those that count
    features, unreadable = embed(backbone, tints(9, unreadable=[8]), np.arange(7), CPU, batch_size=2)
    return {
        "decided": decided,
        "refused": refused,
        "signals": [quiet, told],
        "means": window.close(),
        "features": features,
        "running_mean": backbone.norm.running_mean,
        "trackers": accelerator_of("fp32", (), ".").num_processes,
        "unreadable": dict(unreadable),
    }


def test_two_processes_agree() -> None:
    first, second = run_two_processes(on_two)
    assert first["decided"] == second["decided"] == "by 0"
    assert first["refused"] == "IndexError: list index out of range"
    assert second["refused"] == "OtherRankError: list index out of range"
    assert first["signals"] == second["signals"] == [None, 130]
    assert first["means"] == second["means"] == {"loss": 0.5, "chance": 2.0}
    assert first["trackers"] == second["trackers"] == 2
    alone, _ = embed(Colours(), tints(9), np.arange(7), CPU)
    assert torch.equal(first["features"], second["features"])
    torch.testing.assert_close(first["features"], alone)
    assert second["running_mean"].tolist() == [1, 1, 1]
