"""Downloads over a bad network: one error that names three ways out, soon, and nothing half kept."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from checkpoints import backbone, swav
from limits import HANG
from loopback import Answer, Server, cut, serving, stalled, status, trickling, understated, whole

import ssl_backbones
from ssl_backbones import PretrainedWeightsError
from ssl_backbones.fetch import download as downloads
from ssl_backbones.fetch import folder_of
from ssl_backbones.fetch.download import DownloadError, download
from ssl_backbones.files import replacing

NAME = "resnet50_swav.in1k_800ep"
HASHED = "resnet50_moco_v2.in1k_800ep"
WAYS = ("ssl-backbones import {name} FILE", "pretrained_cfg_overlay=dict(url=ADDRESS)", "pretrained=False")


def content(architecture: str = "resnet50") -> bytes:
    file = io.BytesIO()
    torch.save(swav(backbone(architecture)), file)
    return file.getvalue()


FILE = content()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PATIENCE", HANG)
    with serving() as server:
        yield server


def refusal(url: str, name: str = NAME) -> str:
    """The error when the weights of a name are asked for from an address; nothing is kept."""
    with pytest.raises(PretrainedWeightsError) as caught:
        timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"url": url})
    folder = folder_of(name)
    assert not folder.exists() or list(folder.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (status(404), "the server answered 404"),
        (status(403), "the server answered 403"),
        (status(500), "the server answered 500"),
        (status(503), "the server answered 503"),
        (cut(FILE, len(FILE) // 2), f"cut after {len(FILE) // 2} of {len(FILE)} bytes"),
        (cut(FILE, 0), f"cut after 0 of {len(FILE)} bytes"),
        (stalled(), "stalled"),
        (stalled(FILE, 1000), "stalled"),
        (trickling(FILE), "stalled"),
        (status(302, Location="/nowhere"), "the server answered 404"),
        (status(302, Location="file:///etc/hostname"), "the server answered 302"),
    ],
    ids=["404", "403", "500", "503", "cut", "cut at once", "silent", "stalled", "trickling", "astray", "to a file"],
)
def test_a_transfer_that_fails_is_one_error_with_three_ways_out(
    answer: Answer, told: str, server: Server, monkeypatch: pytest.MonkeyPatch
):
    if told == "stalled":
        monkeypatch.setattr(downloads, "PATIENCE", 0.6)
    server.answers["/swav.pth"] = answer
    said = refusal(f"{server.url}/swav.pth")
    for part in (NAME, f"{server.url}/swav.pth", told, *WAYS):
        assert part.format(name=NAME) in said


@pytest.mark.parametrize(
    ("name", "sent", "told"),
    [
        (NAME, FILE[: len(FILE) // 2], "cut short"),
        (NAME, b"<html>quota exceeded</html>", "a web page"),
        (NAME, b"", "cut short"),
        (NAME, content("resnet18"), "does not fill a headless resnet50"),
        (HASHED, FILE, "its md5 begins"),
    ],
    ids=["truncated", "web page", "empty", "another architecture", "another hash"],
)
def test_what_comes_whole_but_wrong_is_refused_and_not_kept(name: str, sent: bytes, told: str, server: Server):
    server.answers["/file.pth"] = whole(sent)
    assert told in refusal(f"{server.url}/file.pth", name)


def test_a_length_that_is_too_small_is_noticed(server: Server):
    server.answers["/file.pth"] = understated(FILE, len(FILE) - 100)
    assert "cut short" in refusal(f"{server.url}/file.pth")


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.mark.parametrize("url", ["http://127.0.0.1:{closed_port}/x.pth", "http://[::bad/x.pth", "ftp://here/x.pth"])
def test_no_way_to_the_address(url: str, server: Server):
    url = url.replace("{closed_port}", str(closed_port()))
    said = refusal(url)
    for way in WAYS:
        assert way.format(name=NAME) in said


def test_an_address_that_swallows_everything_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch):
    def swallowed(*_: object, **__: object) -> None:
        time.sleep(1)
        raise OSError("too late for anyone to read")

    monkeypatch.setattr(downloads, "PATIENCE", 0.1)
    monkeypatch.setattr(downloads, "urlopen", swallowed)
    assert "did not answer" in refusal("http://example.invalid/x.pth")


def test_offline_says_so_at_once(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(f"{server.url}/x.pth")
    assert server.asked == []


def test_a_folder_that_cannot_be_written_is_the_same_error(server: Server, tmp_path: Path):
    (tmp_path / "hub").write_text("a file where the cache should be")
    server.answers["/swav.pth"] = whole(FILE)
    with pytest.raises(PretrainedWeightsError, match="could not fetch"):
        timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"url": f"{server.url}/swav.pth"})


def test_a_failed_transfer_leaves_nothing(server: Server, tmp_path: Path):
    server.answers["/x"] = cut(b"12345", 3)
    with pytest.raises(DownloadError), replacing(tmp_path / "x") as file:
        download(f"{server.url}/x", file)
    assert not list(tmp_path.iterdir())
    server.answers["/x"] = whole(b"12345")
    with replacing(tmp_path / "x") as file:
        download(f"{server.url}/x", file)
    assert (tmp_path / "x").read_bytes() == b"12345"


def test_a_tag_that_does_not_exist_is_refused_before_anything_is_asked(server: Server):
    with pytest.raises(ssl_backbones.UnknownModelError, match=r"near it are resnet50_swav\.in1k_800ep"):
        ssl_backbones.create_model("resnet50_swav.in1k_900ep", pretrained=True)
    assert server.asked == []
