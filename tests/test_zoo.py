"""Others' weights: every row is a name, fetched from its publisher, verified, converted and loaded whole."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import timm
import torch
from checkpoints import LAYOUTS, backbone
from loopback import Server, serving, whole

import ssl_backbones
from ssl_backbones import PretrainedWeightsError, __main__
from ssl_backbones.fetch import folder_of, published_weights, weights
from ssl_backbones.fetch.download import download
from ssl_backbones.registry.tags import TAGS, Tag
from ssl_backbones.registry.zoo import ORIGINS

NET = backbone()
PUBLISHER = "https://dl.fbaipublicfiles.com"
FETCHED = [tag for tag in TAGS if tag.url]
FIRST = {tag.method: tag.name for tag in reversed(FETCHED)}
ONE_A_METHOD = [
    pytest.param(tag, marks=() if tag.name in FIRST.values() else pytest.mark.slow, id=tag.name) for tag in FETCHED
]
LAYOUT_OF = {
    "moco_v1": "MoCo v1",
    "moco_v2": "MoCo v2",
    "simsiam": "SimSiam",
    "swav": "SwAV",
    "deepcluster_v2": "DeepCluster-v2",
    "sela_v2": "DeepCluster-v2",
    "barlow_twins": "bare",
    "vicreg": "bare",
    "dino": "bare",
}
ROWS = {
    ("moco_v1", 200): 60.6,
    ("moco_v2", 200): 67.7,
    ("moco_v2", 800): 71.1,
    ("simsiam", 100): 68.1,
    ("swav", 800): 75.3,
    ("swav", 400): 74.6,
    ("swav", 200): 73.9,
    ("swav", 100): 72.1,
    ("deepcluster_v2", 800): 75.2,
    ("deepcluster_v2", 400): 74.3,
    ("sela_v2", 400): 71.8,
    ("barlow_twins", 1000): 73.3,
    ("vicreg", 1000): 73.2,
    ("dino", 800): 75.3,
    ("lewel_b", 100): 71.9,
    ("lewel_b", 200): 72.8,
    ("lewel_b", 400): 73.8,
    ("byol", 1000): 74.3,
}
"""The publishers' figures, by method and epochs."""


def content_of(tag: Tag) -> bytes:
    """A file as the publisher of a tag lays it out."""
    file = io.BytesIO()
    torch.save(LAYOUTS[LAYOUT_OF[tag.method]][1](NET), file)
    return file.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """In the place of the publishers' host, with a cache of its own and the network switched on."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:

        def redirected(url: str, file: BinaryIO, most: int) -> None:
            download(url.replace(PUBLISHER, server.url), file, most)

        monkeypatch.setattr(weights, "download", redirected)
        yield server


@pytest.fixture
def publish(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Tag]:
    """Put the file of a tag on the server, with the hash that its row states."""

    def put(name: str) -> Tag:
        tag = next(tag for tag in TAGS if tag.name == name)
        assert tag.origin
        assert tag.url
        content = content_of(tag)
        server.answers[tag.url.removeprefix(PUBLISHER)] = whole(content)
        md5 = hashlib.md5(content).hexdigest()[:8] if tag.origin.md5 else ""
        known = dataclasses.replace(tag, origin=dataclasses.replace(tag.origin, md5=md5))
        monkeypatch.setattr(weights, "TAGS", (known, *(other for other in weights.TAGS if other.name != name)))
        return known

    return put


def test_every_row_of_the_table_is_a_tag_with_its_figure():
    rows = {(tag.method, tag.epochs): tag.origin.number for tag in TAGS if tag.origin}
    assert rows == ROWS
    assert {tag.name for tag in TAGS if tag.origin} == set(ORIGINS)
    assert {tag.name for tag in TAGS if tag.origin and not tag.url} == {
        "resnet50_byol.in1k_1000ep",
        *(f"resnet50_lewel_b.in1k_{epochs}ep" for epochs in (100, 200, 400)),
    }


def test_addresses_and_hashes_are_the_publishers():
    urls = {tag.name.removeprefix("resnet50_"): tag.url for tag in FETCHED}
    run = f"{PUBLISHER}/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar"
    assert urls["moco_v2.in1k_800ep"] == run
    assert urls["sela_v2.in1k_400ep"] == f"{PUBLISHER}/deepcluster/selav2_400ep_pretrain.pth.tar"
    assert urls["deepcluster_v2.in1k_800ep"] == f"{PUBLISHER}/deepcluster/deepclusterv2_800ep_pretrain.pth.tar"
    assert urls["simsiam.in1k_100ep"].endswith("/simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar")
    assert len(set(urls.values())) == len(urls) == 14
    assert {origin.md5 for origin in ORIGINS.values()} == {"", "b251726a", "59fd9945", "a04e12f8"}


@pytest.mark.parametrize("tag", ONE_A_METHOD)
def test_every_published_name_is_fetched_and_converted_whole(tag: Tag, server: Server, publish):
    publish(tag.name)
    found = published_weights(tag.name)
    assert list(found) == list(NET)
    assert all(torch.equal(found[key], NET[key]) for key in NET)
    assert server.asked == [f"GET {tag.url.removeprefix(PUBLISHER)}"]  # type: ignore[union-attr]
    record = json.loads((folder_of(tag.name) / "record.json").read_text())
    content = (folder_of(tag.name) / "checkpoint").read_bytes()
    assert record == {
        "came_from": tag.url,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


@pytest.mark.parametrize("create", [ssl_backbones.create_model, timm.create_model])
def test_pretrained_loads_strictly_and_once_fetched_needs_no_network(create, server: Server, publish, monkeypatch):
    tag = publish("resnet50_swav.in1k_800ep")
    model = create("resnet50_swav", pretrained=True)
    assert all(torch.equal(value, NET[key]) for key, value in model.state_dict().items())
    assert "state_dict" not in model.pretrained_cfg
    assert (model.pretrained_cfg["license"], model.pretrained_cfg["url"]) == ("cc-by-nc-4.0", tag.url)
    assert model.pretrained_cfg["crop_pct"] == 0.875
    assert "weights of facebookresearch/swav" in model.pretrained_cfg["description"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    maps = create(tag.name, pretrained=True, features_only=True, output_stride=8)
    assert maps.feature_info.reduction() == [2, 4, 8, 8, 8]
    assert torch.equal(maps.state_dict()["layer1.0.conv1.weight"], NET["layer1.0.conv1.weight"])
    assert len(server.asked) == 1


def test_a_cache_folder_is_used_where_one_is_named(server: Server, publish, tmp_path: Path):
    publish("resnet50_vicreg.in1k_1000ep")
    ssl_backbones.create_model("resnet50_vicreg", pretrained=True, cache_dir=tmp_path / "mine")
    assert (tmp_path / "mine" / "ssl-backbones" / "resnet50_vicreg.in1k_1000ep" / "checkpoint").is_file()
    assert not (tmp_path / "hub").exists()


def test_a_mirror_may_be_named(server: Server, publish):
    tag = publish("resnet50_dino.in1k_800ep")
    server.answers["/mirror/dino.pth"] = whole(content_of(tag))
    overlay = {"url": f"{server.url}/mirror/dino.pth"}
    model = timm.create_model(tag.name, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.bn1.bias, NET["bn1.bias"])
    assert server.asked == ["GET /mirror/dino.pth"]


def spoil_content(folder: Path) -> None:
    content = bytearray((folder / "checkpoint").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "checkpoint").write_bytes(content)


def cut_content(folder: Path) -> None:
    (folder / "checkpoint").write_bytes((folder / "checkpoint").read_bytes()[:-1])


def spoil_record(folder: Path) -> None:
    (folder / "record.json").write_text('{"size": 3}')


@pytest.mark.parametrize(
    ("spoil", "told"), [(spoil_content, "its sha256"), (cut_content, "bytes, and had"), (spoil_record, "record.json")]
)
def test_a_kept_file_that_changed_is_refused(spoil, told: str, server: Server, publish):
    tag = publish("resnet50_dino.in1k_800ep")
    published_weights(tag.name)
    spoil(folder_of(tag.name))
    with pytest.raises(PretrainedWeightsError, match=told) as caught:
        published_weights(tag.name)
    assert "delete that folder" in str(caught.value)


def test_a_file_without_record_is_fetched_again(server: Server, publish):
    tag = publish("resnet50_dino.in1k_800ep")
    published_weights(tag.name)
    (folder_of(tag.name) / "record.json").unlink()
    published_weights(tag.name)
    assert len(server.asked) == 2


@pytest.mark.parametrize("name", [tag.name for tag in TAGS if tag.origin and not tag.url])
def test_what_has_no_address_says_how_to_download_by_hand(name: str, server: Server):
    with pytest.raises(PretrainedWeightsError) as caught:
        ssl_backbones.create_model(name, pretrained=True)
    told = str(caught.value)
    for way in (ORIGINS[name].page or "?", f"ssl-backbones import {name} FILE", "pretrained=False", "by hand"):
        assert way in told
    assert "\n" not in told


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("layout", ["LEWEL", "bare"])
def test_an_imported_file_becomes_the_weights_of_its_name(layout: str, server: Server, tmp_path: Path, capsys):
    name = "resnet50_lewel_b.in1k_400ep"
    file = saved(LAYOUTS[layout][1](NET), tmp_path / "lewel_b_400ep.pth")
    assert __main__.main(["import", name, str(file)]) == 0
    assert f"{name} has its weights: 318 tensors of a resnet50" in capsys.readouterr().out
    file.unlink()
    model = timm.create_model(name, pretrained=True)
    assert all(torch.equal(value, NET[key]) for key, value in model.state_dict().items())
    assert server.asked == []
    with pytest.raises(PretrainedWeightsError, match=r"could not fetch the weights .*/gone\.pth"):
        published_weights(name, f"{server.url}/gone.pth")
    assert server.asked[0] == "GET /gone.pth"


def test_a_downloaded_file_can_be_imported_for_a_name_with_an_address(publish, server: Server, tmp_path: Path):
    tag = publish("resnet50_moco_v2.in1k_800ep")
    (tmp_path / "moco.pth.tar").write_bytes(content_of(tag))
    assert __main__.main(["import", tag.name, str(tmp_path / "moco.pth.tar")]) == 0
    assert torch.equal(published_weights(tag.name)["bn1.bias"], NET["bn1.bias"])
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "architecture", "told"),
    [
        ("resnet50_lewel_b.in1k_400ep", "resnet18", "does not fill a headless resnet50"),
        ("resnet50_moco_v2.in1k_800ep", "resnet50", "md5 begins"),
        ("resnet50_lewel_m.in1k_200ep", "resnet50", "nobody else publishes weights as"),
        ("resnet50_nothing", "resnet50", "nobody else publishes weights as"),
    ],
)
def test_an_import_that_is_not_the_named_file_is_refused(
    name: str, architecture: str, told: str, server: Server, tmp_path: Path, capsys
):
    file = saved(backbone(architecture), tmp_path / "net.pth")
    assert __main__.main(["import", name, str(file)]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()


def test_list_and_describe_show_whose_weights_they_are(capsys):
    assert __main__.main(["list", "resnet50_*.in1k_800ep"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for part in ("MoCo v2", "800", "71.1", "cc-by-nc-4.0, NON-COMMERCIAL", "facebookresearch/moco"):
        assert part in rows["resnet50_moco_v2.in1k_800ep"]
    assert "NON-COMMERCIAL" not in rows["resnet50_dino.in1k_800ep"]
    known = ssl_backbones.describe("resnet50_lewel_b.in1k_100ep")
    assert known.non_commercial
    text = str(known)
    for part in ("LayneH/LEWEL", "by hand, from https://drive.google.com/file/d/12_u_6mR7", "71.9 %", "LEWEL_B"):
        assert part in text
    assert "SAME" in str(ssl_backbones.describe("resnet50_byol.in1k_1000ep"))
