"""Processes on several machines: they find a way to one another or say what is missing, and have disks of their own."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from runs import image_folder
from warm_processes import start_program

from ssl_backbones.runs import manifest
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.manifest import wait_for
from ssl_backbones.train import host_group, processes
from ssl_backbones.train.host_group import MeetingError, make_host_group, meeting
from ssl_backbones.train.processes import StopSignals

CPU = torch.device("cpu")


@pytest.fixture
def alone() -> Iterator[None]:
    """One process that has met the others, of which there are none."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that gloo finds no way between."""

    def fail(**asked: Any) -> Any:
        raise RuntimeError("[enforce fail at gloo/tcp/device.cc:208] ifa. Unable to find interface for: ib0\nframes")

    monkeypatch.setattr(dist, "new_group", fail)


def test_hosts_without_a_way_between_them_are_told_of_the_variable(alone: None, no_way: None) -> None:
    with pytest.raises(MeetingError, match=r"interface for: ib0\): set GLOO_SOCKET_IFNAME to the network interface"):
        make_host_group(CPU)
    with pytest.raises(MeetingError, match=r"cannot reach one another .*GLOO_SOCKET_IFNAME"), meeting():
        raise RuntimeError("gloo connectFullMesh failed")
    with pytest.raises(RuntimeError, match=r"^another"), meeting():
        raise RuntimeError("another")


def test_devices_talk_where_hosts_cannot(
    alone: None, no_way: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The signal to stop is then agreed upon by the group of the devices."""
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    make_host_group(CPU)
    assert host_group.host_group() is None
    assert "set GLOO_SOCKET_IFNAME to the network interface" in capsys.readouterr().out
    stop = StopSignals()
    try:
        assert stop.agreed() is None
        signal.raise_signal(signal.SIGTERM)
        assert [stop.agreed(), stop.agreed()] == [None, 143]
        assert stop.agreed_at_once() == 143
    finally:
        stop.restore()


def test_a_file_that_a_network_file_system_hides_is_seen_once_its_folder_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS answers that a name is not there from memory; a listing asks the server."""
    known: set[str] = set()
    polls = iter([[], [], ["there"]])

    def listed(folder: Any) -> list[str]:
        known.update(found := next(polls))
        return found

    monkeypatch.setattr(os, "listdir", listed)
    monkeypatch.setattr(Path, "exists", lambda self: self.name in known)
    wait_for(tmp_path / "there")
    assert list(polls) == []
    assert manifest.VISIBLE_WITHIN == 120


PROGRAM = "import sys; from ssl_backbones.__main__ import main; sys.exit(main())"
SMALL = (
    "pretrain sample --size 16 --epochs 2 --batch_size 12 --method.bn_splits 3 --method.queue_size 12 --workers 0 "
    "--schedule.warmup_epochs 0 --precision fp32 --layout contiguous --log_every 1 --monitoring.k 3"
)


@pytest.mark.slow
def test_three_processes_on_two_hosts(tmp_path: Path) -> None:
    """Two loopback addresses, a cache on each host's own disk, and every message once."""
    data = image_folder(tmp_path / "images")
    with socket.socket() as there:
        there.bind(("127.0.0.2", 0))
        port = there.getsockname()[1]
    common = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.2", "MASTER_PORT": str(port)}
    common |= {"GLOO_SOCKET_IFNAME": "lo"}
    said, ranks = [tmp_path / f"said-{rank}.txt" for rank in range(3)], []
    for rank, (host, local, here) in enumerate([("a", 0, 2), ("a", 1, 2), ("b", 0, 1)]):
        place = {"RANK": str(rank), "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(here)}
        words = [*SMALL.split(), "--data", data, "--out", tmp_path / "run", "--cache", tmp_path / f"disk-{host}"]
        ranks.append(start_program(PROGRAM, *words, said=[said[rank], said[rank]], **common, **place))
    for process in ranks:
        process.join(600)
    first, *others = [file.read_text() for file in said]
    assert [process.exitcode for process in ranks] == [0, 0, 0], (first, others)
    assert (tmp_path / "run" / "results.json").exists()
    assert len(read_log(tmp_path / "run" / "log.jsonl")) > 3
    for host in ("disk-a", "disk-b"):
        assert len([folder for folder in (tmp_path / host).iterdir() if folder.is_dir()]) == 1
    assert others == ["", ""]
    told = [line for line in first.splitlines() if line and "%|" not in line and not line.endswith("so far)")]
    assert [line for line in told if told.count(line) > 1] == []
