"""A run's folder gives back the method that was trained, or says why it cannot."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from runs import image_folder, run, state, tiny
from small_methods import CONFIGS, Drawn, mined, small_method
from warm_processes import run_program, without
from whole_runs import contents

from ssl_backbones import commands, create_model
from ssl_backbones.files import object_digest
from ssl_backbones.methods import LewelBConfig, MethodConfig, RunError, method_from_run
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.registry.errors import UnknownModelError
from ssl_backbones.runs import run_folder, saving
from ssl_backbones.visualizers import alignment_maps, alignment_panels, grid, most_distinct, overlay, stretched


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LEWEL_B run to its end, on few images."""
    path = tmp_path_factory.mktemp("lewel")
    return run(tiny(LewelBConfig, image_folder(path / "photos"), path / "run")).path


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
    recipe = tiny(kind, image_folder(tmp_path / "photos", 8), tmp_path / "run").to_dict()
    method = small_method(kind, seed=3)
    method.dataset(mined(Drawn(8)), 16, 0)  # what has a row for each image gets its rows
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe))
    saving.save(tmp_path / "run" / "checkpoints", 7, {"method": method.state_dict()}, {})
    torch.testing.assert_close(
        dict(method_from_run(tmp_path / "run").state_dict()), dict(method.state_dict()), rtol=0, atol=0
    )


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_the_backbone_of_an_unfinished_run_is_had(
    kind: type[MethodConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of its newest checkpoint, as its end would publish it, whoever holds the folder; nothing there changes."""
    start = Provenance(
        *("elsewhere", "resnet8", "0" * 64, "cc-by-nc-4.0", None, None, None, "none"),
        *((0.4,) * 3, (0.3,) * 3, "bicubic", 0.75),
    )
    recipe = tiny(kind, image_folder(tmp_path / "photos", 8), tmp_path / "run", init="elsewhere").begun_with(start)
    monkeypatch.setattr(run_folder, "Lock", lambda *_: pytest.fail("the folder is another's"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    for step in (3, 7):
        method = small_method(kind, seed=step)
        method.dataset(mined(Drawn(8)), 16, 0)
        if (other := method.published) is not method.backbone:
            other.load_state_dict({name: 2 * value for name, value in other.state_dict().items()})
        saving.save(tmp_path / "run" / "checkpoints", step, {"method": method.state_dict()}, {})
    before = contents(tmp_path / "run")
    with pytest.raises(UnknownModelError) as refused:
        create_model(tmp_path / "run", pretrained=True)
    said = re.search("`ssl-backbones (convert [^`]*)`", str(refused.value))
    assert said is not None
    assert commands.main(said[1].replace("NEW", str(tmp_path / "new")).split()) == 0
    assert contents(tmp_path / "run") == before
    model = create_model(tmp_path / "new", pretrained=True)
    torch.testing.assert_close(model.state_dict(), method.published.state_dict(), rtol=0, atol=0)
    told = model.pretrained_cfg
    assert (told["input_size"], told["mean"], told["std"]) == ([3, 16, 16], list(start.mean), list(start.std))
    assert (told["interpolation"], told["crop_pct"], told["license"]) == ("bicubic", 0.75, start.licence)
    assert "after step 7 of a run that was not finished" in told["description"]


@pytest.mark.parametrize("option", ["--licence mit", "--prefix backbone", "--architecture resnet8"])
def test_what_a_run_tells_itself_is_not_given(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    assert commands.main(["convert", str(tmp_path), "--out", str(tmp_path / "new"), *option.split()]) == 2
    assert f"{option.split()[0]} is not for a run" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{}")
    assert commands.main(["convert", str(tmp_path), "--out", str(tmp_path / "new"), *option.split()]) == 2
    assert f"is finished and has left its backbone: take {tmp_path / 'backbone'}" in capsys.readouterr().err


class TestMaps:
    def test_the_most_distinct_alone(self, folder: Path) -> None:
        images = torch.randn(3, 3, 16, 16)
        every = alignment_maps(folder, images)
        torch.testing.assert_close(alignment_maps(folder, images, k=4), every[:, most_distinct(every, 4)])
        with pytest.raises(ValueError, match="k is 17 of maps"):
            alignment_maps(folder, images, k=17)
        with pytest.raises(ValueError, match=r"give normalised floats \(B, 3, H, W\)"):
            alignment_maps(folder, images[0])

    def test_two_views_stand_side_by_side(self, small_images: list[Image.Image]) -> None:
        maps = torch.rand(2, 2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
        square = [image.resize((40, 40)) for image in small_images[:4]]
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
        self.refused(tmp_path, r"cannot be read \(it is no JSON: ")
        (tmp_path / "recipe.json").write_text("[]")
        self.refused(tmp_path, "holds no object")

    def test_a_published_backbone_alone(self, copied: Path) -> None:
        shutil.rmtree(copied / "checkpoints")
        self.refused(copied, "holds no checkpoint, and the head of a method is saved nowhere else: train on")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"type": "Unheard"}, "method.type is 'Unheard', but must be one of AlignedConfig, "),
            ({"type": "MoCoV2Config"}, "method.[a-z_]+ is not a field of MoCoV2Config"),
            ({"newer": 1}, "method.newer is not a field of LewelBConfig"),
            ({"groups": 5}, "groups=5 must divide"),
            ({"views": [{}]}, r"method.views is \[{}\], but must be 2 values"),
            ({"hidden_dim": "wide"}, "method.hidden_dim is 'wide', but must be a whole number"),
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

    @pytest.mark.parametrize("file", ["method.safetensors", "optimizer.safetensors", "MANIFEST.json"])
    def test_the_newest_whole_checkpoint_counts(
        self, copied: Path, file: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = last(copied)
        newer = saving.save(copied / "checkpoints", int(path.name[5:]) + 1, {"method": {}, "optimizer": {}}, {}, keep=2)
        content = bytearray((newer / file).read_bytes())
        content[-1] ^= 1
        (newer / file).write_bytes(content)
        torch.testing.assert_close(
            dict(method_from_run(copied).backbone.state_dict()),
            safetensors.torch.load_file(copied / "backbone" / "model.safetensors"),
            rtol=0,
            atol=0,
        )
        assert f"{path} is read, as a newer checkpoint is not whole: {newer.name}: " in caplog.text
        for other in set((copied / "checkpoints").iterdir()) - {newer}:
            shutil.rmtree(other)
        self.refused(
            copied, rf"none of the 1 checkpoints in .* is whole \({newer.name}: (its )?{file} .*\); restore one"
        )

    def test_a_checkpoint_without_a_method(self, copied: Path) -> None:
        path = last(copied)
        saving.save(copied / "checkpoints", int(path.name[5:]) + 1, {"backbone": {}}, {})
        self.refused(copied, r"method\.safetensors cannot be read")

    def test_another_format(self, copied: Path) -> None:
        path = last(copied)
        manifest = json.loads((path / "MANIFEST.json").read_text()) | {"schema": 9}
        (path / "MANIFEST.json").write_text(json.dumps(manifest | {"sha256": object_digest(manifest)}))
        self.refused(copied, "format 9 and this version reads 1")


WITHOUT_THE_EXTRA = f"""{without("accelerate", "datasets", "tyro", "matplotlib")}
from ssl_backbones.methods import method_from_run
print(type(method_from_run(sys.argv[1])).__name__)
"""


def test_it_needs_nothing_but_a_plain_installation(folder: Path) -> None:
    done = run_program(WITHOUT_THE_EXTRA, folder)
    assert (done.stdout, done.returncode) == ("LewelB\n", 0), done.stderr
