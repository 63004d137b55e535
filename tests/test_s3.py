"""Shards and parquet on an S3 server of this machine: the same run as from a folder, parquet and tar on a disk."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import pyarrow as pa
import pytest
import torch
from conftest import drawn_image
from image_sources import write
from runs import Part, as_rank, killed, outcome, run, stop, tiny
from test_tar import same_tensors, shard, tensors
from two_processes import run_two_processes
from whole_runs import NoisyConfig

from ssl_backbones.data import ImageSourceError, asking, blocks, open_images, source, tar
from ssl_backbones.recipes.settings import Checkpoints

LACKING = [name for name in ("moto", "flask", "flask_cors", "s3fs", "boto3") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(LACKING), reason=f"{', '.join(LACKING)} not installed: pip install 'moto[server]' s3fs boto3"
    ),
    pytest.mark.filterwarnings("ignore"),  # of the server's packages
]
KEY, SECRET = "AKIANobodyHasThisKey", "SwordfishAndNobodyHasThisOneEither"
COUNT = 26


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket named `images`, and the environment by which libraries find it."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    s3fs.S3FileSystem.clear_instance_cache()  # it would be that of another server
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SSL_BACKBONES_CACHE": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(blocks, "temporary_folder", lambda: tmp_path / "blocks")
    monkeypatch.setattr(asking, "WAIT", 0.01)
    store = boto3.resource("s3").create_bucket(Bucket="images")
    try:
        yield store
    finally:
        server.stop()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder, parquet and tar shards of the same images."""
    encoded = [hostile.encode(drawn_image(at, 24 + at % 5, 28), "JPEG") for at in range(COUNT)]
    for at, content in enumerate(encoded):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / f"{at:03d}.jpg").write_bytes(content)
    write(tmp_path / "packed" / "table.parquet", image=pa.array(encoded, pa.binary()))
    for at in range(4):
        rows = range(7 * at, min(COUNT, 7 * at + 7))
        shard(tmp_path / "packed" / f"shard-{at}.tar", [(f"{row:03d}.jpg", encoded[row]) for row in rows])
    return tmp_path


def upload(bucket: Any, folder: Path) -> None:
    """Put the packed files of a folder into the bucket."""
    for file in sorted(folder.iterdir()):
        bucket.upload_file(str(file), f"{'tars' if file.suffix == '.tar' else 'tables'}/{file.name}")


@pytest.mark.parametrize("held", [0, 2**29])
def test_all_forms_give_the_same_tensors(held: int, bucket: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(bucket, here / "packed")
    monkeypatch.setattr(source, "HELD_IN_MEMORY", held)
    whole = tensors(open_images(here / "folder"))
    for spec in (
        str(here / "packed" / "table.parquet"),
        str(here / "packed" / "shard-{0..3}.tar"),
        "s3://images/tables/table.parquet",
        "s3://images/tars/shard-{0..3}.tar",
        "s3://images/tars",
        "s3://images/tars/*.tar",
    ):
        images = open_images(spec)
        assert same_tensors(tensors(images, workers=2), whole), spec
        assert same_tensors(tensors(images, first=4), whole[8:]), spec
    local, distant = (open_images(spec) for spec in (str(here / "packed" / "shard-{0..3}.tar"), "s3://images/tars"))
    assert distant.fingerprint == local.fingerprint


def test_runs_killed_inside_an_epoch_end_as_from_a_folder(bucket: Any, here: Path, tmp_path: Path) -> None:
    upload(bucket, here / "packed")
    recipe = tiny(NoisyConfig, here / "folder", tmp_path / "whole", epochs=2, checkpoints=Checkpoints(1, 0), workers=1)
    run(recipe)
    for step in (2, 5):
        again = dataclasses.replace(recipe, out=str(tmp_path / f"run-{step}"), data="s3://images/tars/shard-{0..3}.tar")
        stop(again, step, killed)
        run(again)
        found, expected = outcome(tmp_path / f"run-{step}"), outcome(tmp_path / "whole")
        assert found["state"] == expected["state"]
        assert found["results"]["weights_sha256"] == expected["results"]["weights_sha256"]
        for path in (tmp_path / f"run-{step}").rglob("*"):
            assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_an_order_of_two_levels_is_that_of_shards_on_a_disk(
    bucket: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "WINDOW", 8)
    upload(bucket, here / "packed")
    local, distant = (open_images(spec) for spec in (str(here / "packed" / "shard-{0..3}.tar"), "s3://images/tars"))
    assert same_tensors(tensors(distant, workers=2), tensors(local))


def test_what_goes_wrong_is_said_in_a_sentence(bucket: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(bucket, here / "packed")
    images = open_images("s3://images/tars")
    bucket.upload_file(str(here / "packed" / "shard-0.tar"), "tars/shard-1.tar")
    with pytest.raises(ImageSourceError, match=r"'s3://images/tars/shard-1\.tar' changed while it was in use"):
        tensors(images)
    for spec in ("s3://images/tars/shard-{3..4}.tar", "s3://others/tars/shard-0.tar"):
        with pytest.raises(ImageSourceError, match=r"does not exist: check the address"):
            open_images(spec)
    for spec in ("s3://images/nothing", "s3://others"):
        with pytest.raises(ImageSourceError, match=r"there is no \.tar or \.parquet file in 's3://"):
            open_images(spec)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nothing")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ImageSourceError, match=r"may not be read \(.+\): give the right to list and read it") as said:
        open_images("s3://images/tars")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("form", ["tars/shard-{0..3}.tar", "tables/table.parquet"])
def test_two_processes_train_from_a_bucket_as_from_a_folder(form: str, bucket: Any, here: Path, tmp_path: Path) -> None:
    upload(bucket, here / "packed")
    recipe = tiny(NoisyConfig, here / "folder", tmp_path / "disk", batch_size=4)
    there = dataclasses.replace(recipe, out=str(tmp_path / "bucket"), data=f"s3://images/{form}")
    parts = {"disk": Part(recipe), "bucket": Part(there)}
    for ended in run_two_processes(as_rank, parts, torch.float32):
        assert ended["disk"].keys() == ended["bucket"].keys()
        assert all(torch.equal(ended["disk"][name], tensor) for name, tensor in ended["bucket"].items())
