"""Features of images: in their order, in single precision, and with the backbone left as it was."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing.synchronize import Event, Semaphore

import numpy as np
import pytest
import torch
from tinted import CPU, Colours, tints
from torch import Tensor
from two_processes import run_two_processes
from warm_processes import signal_from_elsewhere

import ssl_backbones
from ssl_backbones.data.placement import to_device
from ssl_backbones.train import embed as embed_module
from ssl_backbones.train import loader as loader_module
from ssl_backbones.train.embed import embed


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


def shares(rank: int) -> list[Tensor]:
    embed_module.TOGETHER = 1
    return [embed(Colours(), tints(7), np.arange(7), CPU, batch_size=2, shared_out=out)[0] for out in (True, False)]


def test_processes_have_shares_of_the_features_or_all() -> None:
    (first, everything), (second, again) = run_two_processes(shares)
    assert (len(first), len(second)) == (4, 3)
    alone, _ = embed(Colours(), tints(7), np.arange(7), CPU, batch_size=2, shared_out=True)
    for found in (torch.cat([first, second]), everything, again):
        torch.testing.assert_close(found, alone)


def signal_workers(begun: Semaphore, sent: Event) -> None:
    """Once a worker has begun, let another process signal all there are; then let them go on."""
    begun.acquire()
    try:
        signal_from_elsewhere(multiprocessing.active_children())
    finally:
        sent.set()


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this platform does not tell who sent a signal")
@pytest.mark.parametrize("training", [False, True], ids=["embedding", "training"])
def test_workers_that_have_just_begun_are_not_ended_by_signals(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, sent = multiprocessing.Semaphore(0), multiprocessing.Event()

    def late(worker: int) -> None:
        begun.release()
        sent.wait()
        obey_parent_alone(worker)

    obey_parent_alone = loader_module.obey_parent_alone
    monkeypatch.setattr(loader_module, "obey_parent_alone", late)
    signalling = threading.Thread(target=signal_workers, args=(begun, sent))
    signalling.start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    if training:
        assert len(list(loader_module.Loader(tints(12), 3, 0, workers=2).steps(0, 4))) == 4
    else:
        assert len(embed(Colours(), tints(12), np.arange(12), CPU, batch_size=3, workers=2)[0]) == 12
    signalling.join()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mask


def test_half_precision_features_come_in_single() -> None:
    model = ssl_backbones.create_model("resnet8", num_classes=0)
    indices = np.arange(4)
    half, _ = embed(model, tints(4), indices, CPU, autocast=torch.autocast("cpu", torch.bfloat16))
    whole, _ = embed(model, tints(4), indices, CPU)
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    torch.testing.assert_close(half, whole, rtol=0.1, atol=0.1)


def test_images_that_cannot_be_read_are_reported() -> None:
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
