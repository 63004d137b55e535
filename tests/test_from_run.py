"""A run's folder gives back the method that was trained, or says why it cannot."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from runs import photo_folder, run, state, tiny
from small_methods import CONFIGS, small_method

from ssl_backbones.methods import LewelBConfig, MethodConfig, RunError, method_from_run
from ssl_backbones.methods.from_run import method_config
from ssl_backbones.runs import checkpoint
from ssl_backbones.visualizers import alignment_maps, alignment_panels, grid, most_distinct, overlay, stretched


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LEWEL_B run to its end, on few photos."""
    path = tmp_path_factory.mktemp("lewel")
    return run(tiny(LewelBConfig, photo_folder(path / "photos"), path / "run")).path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "run"))


def last(folder: Path) -> Path:
    return max((folder / "checkpoints").iterdir())


def test_every_weight_of_the_newest_checkpoint_is_there(folder: Path) -> None:
    method = method_from_run(folder)
    assert not method.training
    saved = {name.removeprefix("method/"): value for name, value in state(folder).items() if name.startswith("method/")}
    torch.testing.assert_close(dict(method.state_dict()), saved, rtol=0, atol=0)
    backbone = safetensors.torch.load_file(folder / "backbone" / "model.safetensors")
    torch.testing.assert_close(dict(method.backbone.state_dict()), backbone, rtol=0, atol=0)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(alignment_maps(folder, images), alignment_maps(method, images))
    torch.testing.assert_close(alignment_maps(str(folder), images).sum((2, 3)), torch.ones(2, 16))
    random = method_from_run(folder, trained=False)
    assert not torch.equal(random.backbone.conv1.weight, method.backbone.conv1.weight)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_every_method_comes_back(kind: type[MethodConfig], tmp_path: Path) -> None:
    recipe = tiny(kind, photo_folder(tmp_path / "photos", 8), tmp_path / "run").to_dict()
    method = small_method(kind, seed=3)
    if "pseudo_labels" in dict(method.named_buffers()):
        method.pseudo_labels = torch.arange(8) % 3
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe))
    checkpoint.save(tmp_path / "run" / "checkpoints", 7, {"method": method.state_dict()}, {})
    torch.testing.assert_close(
        dict(method_from_run(tmp_path / "run").state_dict()), dict(method.state_dict()), rtol=0, atol=0
    )
    assert method_config(recipe["method"]) == tiny(kind, tmp_path / "photos", tmp_path / "run").method


class TestMaps:
    def test_the_most_distinct_alone(self, folder: Path) -> None:
        images = torch.randn(3, 3, 16, 16)
        every = alignment_maps(folder, images)
        torch.testing.assert_close(alignment_maps(folder, images, k=4), every[:, most_distinct(every, 4)])
        with pytest.raises(ValueError, match="k is 17 of maps"):
            alignment_maps(folder, images, k=17)
        with pytest.raises(ValueError, match=r"give normalised floats \(B, 3, H, W\)"):
            alignment_maps(folder, images[0])

    def test_two_views_stand_side_by_side(self, photos: list[Image.Image]) -> None:
        maps = torch.rand(2, 2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
        square = [photo.resize((40, 40)) for photo in photos[:4]]
        figure = alignment_panels((square[:2], square[2:]), (maps[0], maps[1]), k=2, side=40).picture()
        one, other = most_distinct(maps.flatten(0, 1), 2)
        heats = stretched(maps.numpy())
        cells = [
            [square[i], square[2 + i]]
            + [overlay(square[2 * v + i].convert("L"), heats[v, i, k], alpha=0.6) for k in (one, other) for v in (0, 1)]
            for i in (0, 1)
        ]
        titles = ["view 1", "view 2", f"map {one}", f"map {one}", f"map {other}", f"map {other}"]
        assert np.array_equal(np.asarray(figure), np.asarray(grid(cells, titles=titles)))
        with pytest.raises(ValueError, match="give both views' maps of one method"):
            alignment_panels((square[:2], square[2:]), (maps[0], maps[1, :, :3]))


class TestRefusals:
    def refused(self, folder: Path, message: str) -> None:
        with pytest.raises(RunError, match=message) as found:
            method_from_run(folder)
        assert "\n" not in str(found.value)

    def test_no_run(self, tmp_path: Path) -> None:
        self.refused(tmp_path, r"recipe\.json cannot be read \(No such file or directory\): name the folder that")
        (tmp_path / "recipe.json").write_text("{")
        self.refused(tmp_path, r"cannot be read \(it is no JSON\)")
        (tmp_path / "recipe.json").write_text("[]")
        self.refused(tmp_path, "holds no object")

    def test_a_published_backbone_alone(self, copied: Path) -> None:
        shutil.rmtree(copied / "checkpoints")
        self.refused(copied, "holds no checkpoint, and the head of a method is saved nowhere else: train on")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"type": "Unheard"}, "there is no method 'Unheard'"),
            ({"type": "MoCoV2Config"}, "MoCoV2Config differs in"),
            ({"newer": 1}, "LewelBConfig differs in newer"),
            ({"groups": 5}, "groups=5 must divide"),
            ({"views": [{}]}, "Policy differs in|zip"),
            ({"hidden_dim": "wide"}, "not supported"),
        ],
    )
    def test_another_version(self, copied: Path, change: dict[str, Any], message: str) -> None:
        recipe = json.loads((copied / "recipe.json").read_text())
        recipe["method"] |= change
        (copied / "recipe.json").write_text(json.dumps(recipe))
        self.refused(copied, rf"recipe\.json cannot be made here \(.*({message}).*\): read the run with the version")

    def test_weights_of_another_shape(self, copied: Path) -> None:
        recipe = json.loads((copied / "recipe.json").read_text())
        recipe["method"]["hidden_dim"] = 48
        (copied / "recipe.json").write_text(json.dumps(recipe))
        self.refused(copied, "does not hold the weights of a LewelB .*size mismatch.*: read the run with the version")

    def test_a_damaged_checkpoint(self, copied: Path) -> None:
        path = last(copied) / "method.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        self.refused(copied, rf"method\.safetensors is not what was written: .* delete {last(copied).name} to take")
        path.unlink()
        self.refused(copied, "method.safetensors cannot be read")
        shutil.rmtree(last(copied))
        assert method_from_run(copied) is not None

    def test_a_damaged_manifest(self, copied: Path) -> None:
        path = last(copied) / "MANIFEST.json"
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps(manifest | {"step": 1}))
        self.refused(copied, r"MANIFEST\.json is not what was written")
        newer = {key: value for key, value in manifest.items() if key != "sha256"} | {"schema": 9}
        newer["sha256"] = hashlib.sha256(json.dumps(newer, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(newer))
        self.refused(copied, "has format 9 and this version reads 1")
