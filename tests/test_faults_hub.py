"""The Hub on its bad days: one sentence in bounded time, few retries, nothing half installed, no token told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from loopback_hub import STATUS, loopback_hub

import ssl_backbones
from ssl_backbones.hub.export import save_backbone

TOKEN = "hf_ThisIsNoTokenThatAnybodyHas0000"
CHILD = """
import json, sys, time
from huggingface_hub import constants
waited = []
time.sleep = waited.append
import ssl_backbones
from ssl_backbones.data import open_images
said = {}
for what in sys.argv[1:]:
    waited.clear()
    if "stalled" in what:
        constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.2
    try:
        if what.startswith("data:"):
            open_images(what.removeprefix("data:"))
        else:
            model = ssl_backbones.create_model(f"hf-hub:{what}", pretrained=True)
        answer = ["none", "loaded"]
    except Exception as error:
        answer = [type(error).__name__, str(error)]
    said[what] = [*answer, sum(waited)]
    constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = 600
print(json.dumps(said))
"""
MANNERS = (*STATUS, "cut", "stalled", "kind")
DATA = ("missing", "gated", "broken")


def ask(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A process of its own, as the Hub's address is read when it begins."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("backbone")
    save_backbone(ssl_backbones.create_model("resnet8", num_classes=0), folder, "resnet8")
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.fixture(scope="module")
def told(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers about a model from each kind of Hub, what the Hub was asked, and what lies in the cache afterwards."""
    home = tmp_path_factory.mktemp("home")
    with loopback_hub(files) as (address, kind):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": address,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_ETAG_TIMEOUT": "600",
            "HF_HUB_DOWNLOAD_TIMEOUT": "600",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(ROOT),
        }
        done = ask([*(f"org/{manner}" for manner in MANNERS), *(f"data:org/{manner}" for manner in DATA)], environment)
    left = [path for path in home.rglob("*") if path.is_file() or path.is_symlink()]
    return {
        "said": json.loads(done.stdout.splitlines()[-1]),
        "asked": dict(kind.asked),
        "authorised": dict(kind.authorised),
        "printed": done.stdout + done.stderr,
        "left": [str(path.relative_to(home)) for path in left],
        "contents": b"".join(path.read_bytes() for path in left if path.is_file()),
    }


WAYS_OUT = ("HF_ENDPOINT", "pretrained_cfg_overlay=dict(file=PATH)", "pretrained=False")


@pytest.mark.parametrize(
    ("manner", "reason", "most"),
    [
        ("unauthorised", "there is no such repository, or it is private", 2),
        ("gated", "the repository asks to accept its terms", 2),
        ("missing", "there is no such repository", 2),
        ("limited", "the Hub could not be reached", 8),
        ("broken", "the Hub could not be reached", 8),
        ("cut", "the connection to the Hub broke or stalled", 8),
        ("stalled", "the connection to the Hub broke or stalled", 8),
    ],
)
def test_a_model_that_the_hub_does_not_give(manner: str, reason: str, most: int, told: dict[str, Any]) -> None:
    kind, text, seconds = told["said"][f"org/{manner}"]
    assert kind == "PretrainedWeightsError", text
    for words in (reason, f"hf-hub:org/{manner}", *WAYS_OUT):
        assert words in text
    assert "\n" not in text
    assert seconds < 30
    assert 1 <= told["asked"][manner] <= most


@pytest.mark.parametrize("manner", DATA)
def test_images_that_the_hub_does_not_give(manner: str, told: dict[str, Any]) -> None:
    kind, text, seconds = told["said"][f"data:org/{manner}"]
    assert kind == "ImageSourceError", text
    for words in (f"'org/{manner}'", "check the name", "HF_ENDPOINT", "a folder or .parquet files"):
        assert words in text
    assert "\n" not in text
    assert seconds < 30


def test_a_hub_that_is_kind_gives_a_model(told: dict[str, Any]) -> None:
    assert told["said"]["org/kind"][:2] == ["none", "loaded"]


def test_nothing_is_half_installed(told: dict[str, Any]) -> None:
    """Repositories that could not be fetched leave no file that a later call would take for whole."""
    snapshots = [path for path in told["left"] if "/snapshots/" in path]
    assert {path.split("/")[1] for path in snapshots} == {"models--org--kind"}
    blobs = [path for path in told["left"] if "/blobs/" in path and "org--kind" not in path]
    assert all(path.endswith(".incomplete") for path in blobs)


def test_no_token_is_told_or_kept(told: dict[str, Any]) -> None:
    assert told["authorised"]["gated"] > 0
    assert TOKEN not in told["printed"]
    assert TOKEN.encode() not in told["contents"]
    assert all(TOKEN not in text for _, text, _ in told["said"].values())


UNREACHABLE = """
import time
import ssl_backbones
waited = []
time.sleep = waited.append
try:
    ssl_backbones.create_model("hf-hub:org/name", pretrained=True)
except ssl_backbones.PretrainedWeightsError as error:
    print(sum(waited), error)
"""


@pytest.mark.slow
def test_without_a_network_there_is_one_error_and_little_waiting(tmp_path: Path) -> None:
    """Nobody listens on the port; what is counted are the seconds asked for between the tries."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], env=environment, capture_output=True, text=True, check=True
    )
    seconds, _, text = done.stdout.strip().partition(" ")
    assert float(seconds) < 30
    assert all(words in text for words in WAYS_OUT)
    assert done.stdout.count("\n") == 1
