"""Only what the manifest of a checkpoint names is published, and never a token."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hub_state import STRANGER
from published import publishing, refused
from runs import image_folder, run, tiny

from ssl_backbones.hub.publishing.material import MaterialError
from ssl_backbones.hub.sidecar import check_no_token
from ssl_backbones.methods import MoCoV2Config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("published")
    return run(tiny(MoCoV2Config, image_folder(place / "photos"), place / "run")).path


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_training_state_behind_links(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint in (copied / "checkpoints").iterdir():
        (checkpoint / "method.safetensors").rename(tmp_path / f"{checkpoint.name}.safetensors")
        (checkpoint / "method.safetensors").symlink_to(tmp_path / f"{checkpoint.name}.safetensors")
    assert "is a link, and nothing is published through links" in refused(capsys, copied, "--with_state")


def test_what_the_manifest_does_not_name_stays_here(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("private")
    for checkpoint in (copied / "checkpoints").iterdir():
        (checkpoint / ".env").write_text("HF_TOKEN=private")
        (checkpoint / "notes").mkdir()
        (checkpoint / "notes" / "a.txt").write_text("private")
        (checkpoint / "linked").symlink_to(tmp_path / "secret")
    publishing(copied, "--with_state", "--dry_run", "--out", str(tmp_path / "out"))
    sent = [path for path in (tmp_path / "out" / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in sent} == {".json", ".safetensors"}
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"private" in path.read_bytes()] == []
    assert "does not name them: '.env', 'linked', 'notes'" in capsys.readouterr().out


def test_a_token_in_any_file(tmp_path: Path) -> None:
    for name, content in {
        "LICENSE": STRANGER.encode(),
        "a.safetensors": safetensors.torch.save({"w": torch.ones(1)}, {"note": STRANGER}),
        "MANIFEST.json": STRANGER.replace("h", "\\u0068").encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MaterialError, match=f"{name} would hold what looks like an access token"):
            check_no_token({name: (tmp_path / name).read_bytes()}, MaterialError)
