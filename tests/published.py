"""Runs to publish, and a Hub on this machine that this very process takes for the real one."""

from __future__ import annotations

import re
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest
import runs
import safetensors.torch
from evaluations import labelled_images
from hub_state import WRITER, State
from huggingface_hub import constants
from huggingface_hub.utils import _http
from runs import image_folder, run, tiny
from scripts import script
from writable_hub import writable_hub

from ssl_backbones.methods import MoCoV2Config

TERMS = ("--data_terms", "CC0")
NAMED = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:json|safetensors))`")
"""A file that a card names."""


@dataclass(frozen=True)
class Made:
    """The folders of a run and of evaluations: of its weights, and of random ones."""

    run: Path
    knn: Path
    random: Path


def make(path: Path) -> Made:
    """A MoCo v2 run to its end, and its k-NN accuracy."""
    folder = run(tiny(MoCoV2Config, image_folder(path / "photos"), path / "run")).path
    data = labelled_images(path / "labelled")
    for name, more in (("knn", ()), ("random", ("--random",))):
        evaluate_run(folder, data, path / name, *more)
    return Made(folder, path / "knn", path / "random")


def evaluate_run(folder: Path, data: Path, out: Path, *more: str) -> None:
    """The k-NN accuracy of a run's backbone."""
    runs.forget()
    try:
        script(
            "evaluate",
            ["knn", str(folder), "--size", "16", "--workers", "0", "--data", str(data), "--out", str(out), *more],
        )
    finally:
        runs.forget()


@contextmanager
def here(token: str | None = WRITER) -> Iterator[tuple[str, State]]:
    """A Hub for as long as the block lasts: its address, its state; waits between tries are counted only."""
    with writable_hub() as (address, state), pytest.MonkeyPatch.context() as patch:
        point_at(address, patch, token)
        patch.setattr(_http.time, "sleep", lambda seconds: state.waited.update({threading.get_ident(): seconds}))
        yield address, state
    _http.close_session()


def point_at(address: str, patch: pytest.MonkeyPatch, token: str | None) -> None:
    """Have huggingface_hub take an address for the Hub's: what it reads when it is imported."""
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)  # all there are, for each client
    patch.delenv("HF_TOKEN", raising=False)
    if token:
        patch.setenv("HF_TOKEN", token)


def publishing(run: Path, *words: str, repo: str = "org/resnet8_moco_v2.photos") -> None:
    """The command line."""
    script("publish", [str(run), "--repo", repo, "--yes", *TERMS, *words])


def refused(capsys: pytest.CaptureFixture[str], run: Path, *words: str, repo: str = "org/some.name") -> str:
    """The one sentence that ends it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        publishing(run, *words, repo=repo)
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.err.startswith("publish.py: ")
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    assert "Done" not in said.out
    return said.err


def altered_copy(made: Made, path: Path) -> Path:
    """The run with one weight of its backbone changed in its last bit."""
    copied = Path(shutil.copytree(made.run, path))
    file = copied / "backbone" / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    first = weights["conv1.weight"].flatten().view(-1)
    first[0] = first[0].nextafter(first[0] + 1)
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    return copied


def snippets(card: str) -> list[str]:
    """The Python in a card."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def download(repository: str, place: Path) -> Path:
    """All of a repository as plain files."""
    return Path(huggingface_hub.snapshot_download(repository, local_dir=place, endpoint=constants.ENDPOINT))
