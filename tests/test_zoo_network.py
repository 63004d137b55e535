"""Downloads over a bad network: one error that names three ways out, soon, and nothing half kept."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from checkpoints import backbone, swav
from limits import HANG
from loopback import Answer, Server, cut, endless, serving, stalled, status, trickling, understated, whole
from warm_processes import run_program, start_program

import ssl_backbones
from ssl_backbones import PretrainedWeightsError
from ssl_backbones.convert import reading
from ssl_backbones.fetch import download as downloads
from ssl_backbones.fetch import folder_of, weights
from ssl_backbones.fetch.download import DownloadError, download
from ssl_backbones.files import DISK_ERRORS, UnwritableError, replacing

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


def left_in(folder: Path) -> list[str]:
    """The names of all that lies in a folder, but for its lock."""
    return sorted(path.name for path in folder.glob("*") if path.name != ".lock")


def refusal(url: str, name: str = NAME) -> str:
    """The error when the weights of a name are asked for from an address; nothing is kept."""
    with pytest.raises(PretrainedWeightsError) as caught:
        timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"url": url})
    folder = folder_of(name)
    assert left_in(folder) == []
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
        (status(302, Location="ftp://me:secret@here/x"), "leads on from http to ftp://here/x, and no other scheme"),
        (status(302, Location="https://here/x?sig=secret"), "leads on from http to https://here/x?sig=..., and no"),
        (status(302, Location="gopher://me:secret@here/x"), "the server answered 302"),
    ],
    ids=[
        *("404", "403", "500", "503", "cut", "cut at once", "silent", "stalled", "trickling", "astray", "to a file"),
        *("to ftp", "to https", "to gopher"),
    ],
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
    assert "secret" not in said


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
    monkeypatch.setattr(downloads, "build_opener", lambda *_: SimpleNamespace(open=swallowed))
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


@pytest.mark.parametrize("number", sorted(DISK_ERRORS))
def test_a_full_disk_is_no_network_that_fails(
    number: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Full(io.FileIO):
        def write(self, piece: Any) -> int:
            raise OSError(number, os.strerror(number))

    server.answers["/x"] = whole(b"12345")
    expected = pytest.raises(UnwritableError, match="make room")
    with expected as caught, replacing(tmp_path / "x") as file, Full(file.name, "w") as full:
        download(f"{server.url}/x", full)
    assert f"{tmp_path / 'x'} could not be written ({os.strerror(number)})" in str(caught.value)


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


@pytest.mark.parametrize("answer", [whole(FILE), endless(FILE)], ids=["declared", "undeclared and endless"])
def test_no_more_is_fetched_than_is_allowed(answer: Answer, server: Server):
    server.answers["/x"] = answer
    most, file = len(FILE) // 2, io.BytesIO()
    with pytest.raises(DownloadError, match=f"{most:,}"):
        download(f"{server.url}/x", file, most)
    assert file.tell() <= most


def test_the_publishers_size_is_the_bound_where_it_is_known(server: Server, monkeypatch: pytest.MonkeyPatch):
    server.answers["/x"] = whole(FILE)
    known = tuple(
        dataclasses.replace(tag, origin=tag.origin and dataclasses.replace(tag.origin, size=len(FILE) - 1))
        for tag in weights.TAGS
    )
    monkeypatch.setattr(weights, "TAGS", known)
    assert f"it has {len(FILE):,} bytes, and {len(FILE) - 1:,} are allowed" in refusal(f"{server.url}/x")


OPENED_BY = "USER:PASSWORD@", "?id=3&X-Amz-Credential=SECRET&X-Amz-Signature=SECRET&token=SECRET"


def opened(url: str, way: str = "/x") -> str:
    """An address with everything that may open one."""
    return url.replace("://", f"://{OPENED_BY[0]}") + way + OPENED_BY[1]


def is_secret(text: str) -> bool:
    return any(word in text for word in ("USER", "PASSWORD", "SECRET"))


@pytest.mark.parametrize("answer", [status(404), cut(FILE, 9), whole(b"<html>"), status(302, Location="ftp://h")])
def test_what_opens_an_address_is_in_no_message(answer: Answer, server: Server):
    server.answers[f"/x{OPENED_BY[1]}"] = answer
    assert not is_secret(refusal(opened(server.url)))
    assert server.asked


def test_what_opens_an_address_goes_to_its_host_alone_and_into_no_record(server: Server, capsys: pytest.CaptureFixture):
    heard: list[str | None] = []

    def answer(then: Answer) -> Answer:
        return lambda handler: (heard.append(handler.headers["Authorization"]), then(handler))[1]

    query = OPENED_BY[1]
    server.answers[f"/x{query}"] = answer(status(302, Location="/y"))
    server.answers["/y"] = answer(whole(FILE))
    overlay = {"url": opened(server.url)}
    model = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay)
    assert heard == [f"Basic {base64.b64encode(b'USER:PASSWORD').decode()}", None]
    assert not is_secret(repr(model.pretrained_cfg))
    written = b"".join(path.read_bytes() for path in folder_of(NAME).iterdir())
    assert not is_secret(written.decode("latin-1"))
    told = capsys.readouterr()
    assert not is_secret(told.out + told.err)
    for way in ("/x", "/z"):  # what was fetched is known again by the rest of its address, and another is not
        with suppress(PretrainedWeightsError):
            renewed = opened(server.url, way).replace("SECRET", "OTHER")
            timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"url": renewed})
    assert [asked.partition("?")[0] for asked in server.asked] == ["GET /x", "GET /y", "GET /z"]


FETCH = """
import sys, timm
from huggingface_hub import constants
constants.HF_HUB_OFFLINE = False
import ssl_backbones
timm.create_model(sys.argv[1], pretrained=True, pretrained_cfg_overlay={"url": sys.argv[2]})
"""


def test_what_a_killed_transfer_leaves_goes_with_the_next(server: Server, tmp_path: Path):
    reading.require_safe_torch("what the programs below read")
    server.answers["/x"] = stalled(FILE, len(FILE) // 2)
    home = {"TORCH_HOME": str(tmp_path)}
    folder = folder_of(NAME, tmp_path / "hub" / "checkpoints")
    child = start_program(FETCH, NAME, f"{server.url}/x", said=[tmp_path / "said"] * 2, **home)
    give_up = time.monotonic() + HANG
    while not any(path.stat().st_size for path in folder.glob(".tmp-*")):
        assert child.exitcode is None, (tmp_path / "said").read_text()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)  # type: ignore[arg-type]
    child.join()
    assert list(folder.glob(".tmp-*"))
    server.answers["/x"] = whole(FILE)
    done = run_program(FETCH, NAME, f"{server.url}/x", **home)
    assert done.returncode == 0, done.stderr
    assert left_in(folder) == ["checkpoint", "record.json"]


def test_two_that_fetch_the_same_at_once_fetch_it_once(server: Server, tmp_path: Path):
    reading.require_safe_torch("what the programs below read")
    server.answers["/x"] = whole(FILE)
    files = [tmp_path / f"said-{number}" for number in range(3)]
    started = [
        start_program(FETCH, NAME, f"{server.url}/x", said=[file] * 2, TORCH_HOME=str(tmp_path)) for file in files
    ]
    for child in started:
        child.join()
    assert [child.exitcode for child in started] == [0, 0, 0], [file.read_text() for file in files]
    folder = folder_of(NAME, tmp_path / "hub" / "checkpoints")
    assert server.asked == ["GET /x"]
    assert json.loads((folder / "record.json").read_text())["size"] == len(FILE)
    assert left_in(folder) == ["checkpoint", "record.json"]
