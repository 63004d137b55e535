"""Distillation: its loss by hand, its teachers and their refusals and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from distilling import distilling
from runs import image_folder, run, stop, tiny
from small_methods import SMALL, Drawn, leave_teacher
from torch import Tensor
from torch.nn.functional import interpolate, smooth_l1_loss

from ssl_backbones import create_model
from ssl_backbones.data import Request
from ssl_backbones.methods.distilled import DistilledConfig
from ssl_backbones.models.backbone import feature_map, weights_sha256
from ssl_backbones.models.teacher import Teacher, TeacherError
from ssl_backbones.models.teacher_moments import Moments
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.views import IMAGENET_MEAN, IMAGENET_STD, CenterCrop

VIT = "vit_tiny_patch16_224"


def cosine(first: Tensor, second: Tensor) -> float:
    return float((first @ second / (first.norm() * second.norm())).detach())


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small transformer of random weights, for images of 64 px, with a class token."""
    folder = tmp_path_factory.mktemp("vit") / "vit"
    torch.manual_seed(1)
    made = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, depth=2, embed_dim=48, num_heads=3)
    made.pretrained_cfg = {**made.pretrained_cfg, "input_size": (3, 64, 64)}
    args = {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 0}
    timm.models.save_for_hf(made, folder, model_args=args, safe_serialization=True)
    return str(folder)


# The loss


def test_the_loss_is_the_cosine_distance_from_what_the_teacher_sees_less_its_mean() -> None:
    method = distilling().eval()
    images = Drawn(6)
    dataset = method.dataset(images, 16, 0)
    (view,) = dataset.on_device(dataset[Request(0, np.arange(6))].content)
    view = view.double()
    teacher = create_model(SMALL["teacher"], pretrained=True).double().eval()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    own_mean, own_std = (torch.tensor(each)[:, None, None].double() for each in ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3)))
    levels = interpolate(view * std + mean, (32, 32), mode="bilinear")  # twice the student's side
    target = teacher((levels - own_mean) / own_std)
    whole = CenterCrop(32, 1.0, "bilinear", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    centre = teacher(whole.on_device(whole.on_host([images[at] for at in range(6)], None)).double()).mean(0)
    torch.testing.assert_close(method.branch.centre, centre, rtol=1e-4, atol=1e-5)
    predicted = method.projector(method.backbone(view))
    expected = [1 - cosine(row, seen - method.branch.centre) for row, seen in zip(predicted, target, strict=True)]
    assert method([view])["loss"].item() == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["convolutional", "transformer"])
def test_the_dense_term_compares_maps_cell_by_cell(name: str, vit: str) -> None:
    chosen = {"teacher": vit, "teacher_size": 64} if name == "transformer" else {}
    method = distilling(dense_weight=0.5, **chosen).eval()
    dataset = method.dataset(Drawn(6), 16, 0)
    (view,) = dataset.on_device(dataset[Request(0, np.arange(6))].content)
    view = view.double()
    scalars = method([view])
    maps = method.branch.teacher.look(method.branch.shown(view)).maps
    assert maps is not None
    assert maps.shape[1:] == ((48, 4, 4) if name == "transformer" else (64, 8, 8))
    predicted = interpolate(method.map_projector(feature_map(method.backbone, view)), maps.shape[-2:], mode="bilinear")
    wanted = (maps - method.branch.map_centre[:, None, None]) / method.branch.map_scale
    total = 0.0
    for image, target in zip(predicted, wanted, strict=True):
        for row in range(target.shape[1]):
            for column in range(target.shape[2]):
                mine, theirs = image[:, row, column], target[:, row, column]
                total += 0.9 * (1 - cosine(mine, theirs)) + 0.1 * float(smooth_l1_loss(mine, theirs).detach())
    dense = total / (len(maps) * maps.shape[2] * maps.shape[3])
    assert float(scalars["dense_loss"]) == pytest.approx(dense, rel=1e-6)
    assert scalars["loss"].item() == pytest.approx(float(scalars["pooled_loss"]) + 0.5 * dense, rel=1e-6)
    method.train()([view])["loss"].backward()
    assert all(weights.grad is not None for weights in method.parameters())


@pytest.mark.parametrize(("size", "expected"), [(64, 128), (96, 192), (128, 224), (224, 224), (288, 288)])
def test_a_teacher_of_every_view_sees_twice_the_student_s_side_up_to_224(size: int, expected: int, vit: str) -> None:
    assert distilling(teacher=vit).branch.side_for(size) == expected
    assert distilling(teacher=vit, kept="kept").branch.side_for(size) == 64


def test_the_teacher_is_neither_trained_nor_saved_nor_copied() -> None:
    method = distilling()
    method.dataset(Drawn(4), 16, 0)
    network = method.branch.teacher.network
    assert network is not None
    assert not network.training
    assert not any(weights.requires_grad for weights in network.parameters())
    method.train()
    assert not network.training
    parts = {name.partition(".")[0] for name in method.state_dict()}
    assert parts == {"backbone", "projector", "branch"}
    assert {name for name in method.state_dict() if name.startswith("branch")} == {"branch.centre", "branch.sha256"}


def test_moments_are_those_of_numpy() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (50, 5)).astype(np.float16)
    moments = Moments.over([rows[:20], np.zeros((3, 5), np.float16), rows[20:]])
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(moments.mean.numpy(), exact.mean(0), rtol=1e-12)
    assert moments.scale == pytest.approx(np.sqrt(exact.var(0).mean()), rel=1e-9)
    assert Moments.over([np.ones((2, 5), np.float16)]).scale == 1


# What a teacher gives


def test_a_transformer_gives_what_is_asked_for(vit: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    network = timm.create_model(f"local-dir:{vit}", pretrained=True, num_classes=0).eval()
    tokens = network.forward_features(images)
    token, patches = tokens[:, 0], tokens[:, 1:]
    for output, expected in {
        "pooled": network(images),
        "class": token,
        "mean": patches.mean(1),
        "both": torch.cat([token, patches.mean(1)], 1),
    }.items():
        teacher = Teacher(vit, "", output)  # type: ignore[arg-type]
        seen = teacher.look(images)
        torch.testing.assert_close(seen.features, expected)
        assert teacher.width == expected.shape[1]
        assert seen.maps is not None
        torch.testing.assert_close(seen.maps.flatten(2), patches.transpose(1, 2))


def test_a_layer_is_chosen_by_timms_name(vit: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    network = timm.create_model(f"local-dir:{vit}", pretrained=True, num_classes=0).eval()
    (maps, prefix), *_ = network.forward_intermediates(
        images, indices=[0], norm=True, return_prefix_tokens=True, intermediates_only=True
    )
    seen = Teacher(vit, "blocks.0", "both").look(images)
    torch.testing.assert_close(seen.features, torch.cat([prefix[:, 0], maps.mean((2, 3))], 1))
    torch.testing.assert_close(Teacher(vit, "blocks.0").look(images).features, prefix[:, 0])
    found = Teacher(SMALL["teacher"], "layer2").look(torch.randn(2, 3, 16, 16))
    assert found.maps is not None
    torch.testing.assert_close(found.features, found.maps.mean((2, 3)))


def test_a_transformer_is_made_for_the_size_that_it_is_shown(vit: str) -> None:
    teacher = Teacher(vit)
    assert [teacher.fitting(side) for side in (5, 30, 41, 64)] == [16, 32, 48, 64]
    assert teacher.look(torch.randn(1, 3, 32, 32)).maps.shape[-2:] == (2, 2)  # type: ignore[union-attr]
    assert teacher.look(torch.randn(1, 3, 64, 64)).maps.shape[-2:] == (4, 4)  # type: ignore[union-attr]


def test_a_run_s_folder_is_a_teacher(tmp_path: Path) -> None:
    leave_teacher(tmp_path / "run" / "backbone")
    assert Teacher(str(tmp_path / "run")).width == 64


@pytest.mark.parametrize(("name", "patch"), [("davit_tiny.msft_in1k", 1), ("vit_tiny_patch16_224.augreg_in21k", 16)])
def test_patches_that_overlap_ask_for_no_multiple(name: str, patch: int) -> None:
    assert Teacher(name).fitting(100) == round(100 / patch) * patch


def config_of(folder: Path, **cfg: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= cfg
    config["pretrained_cfg"] = {name: value for name, value in config["pretrained_cfg"].items() if value is not None}
    path.write_text(json.dumps(config))


class TestRefusedTeachers:
    def test_none(self) -> None:
        with pytest.raises(
            TeacherError, match=r"there is no teacher to learn from: name a network .* --method.teacher"
        ):
            Teacher("")

    def test_a_name_that_means_nothing(self) -> None:
        with pytest.raises(TeacherError, match="no network of timm's, and no folder, is called 'resnet9000'"):
            Teacher("resnet9000")

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(TeacherError, match=r"holds no network, neither config.json nor backbone/config.json"):
            Teacher(str(tmp_path))

    def test_a_network_without_weights(self) -> None:
        with pytest.raises(TeacherError, match="nobody publishes weights of 'resnet8', and random ones teach nothing"):
            Teacher("resnet8")

    def test_no_network_names_three_ways_out(self) -> None:
        teacher = Teacher("resnet18.a1_in1k")
        with pytest.raises(TeacherError) as refused:
            teacher.open(64)
        said = str(refused.value)
        assert "not in the local cache" in said
        assert all(way in said for way in ("HF_ENDPOINT", "--method.teacher", "`hf download`"))

    @pytest.mark.parametrize("lacking", ["mean", "std"])
    def test_an_unknown_normalisation(self, lacking: str, tmp_path: Path) -> None:
        leave_teacher(tmp_path / "teacher")
        config_of(tmp_path / "teacher", **{lacking: None})
        with pytest.raises(
            TeacherError, match=r"normalisation of the teacher .* is unknown, as its config.json states"
        ):
            Teacher(str(tmp_path / "teacher"))

    def test_no_such_layer(self, vit: str) -> None:
        with pytest.raises(TeacherError, match=r"has no layer 'blocks.9': choose one of blocks.0, blocks.1 with"):
            Teacher(vit, "blocks.9")

    def test_no_class_token(self) -> None:
        with pytest.raises(TeacherError, match="has no class token, which teacher_output 'both' is made of"):
            Teacher(SMALL["teacher"], "", "both")

    def test_no_feature_maps_for_the_dense_term(self) -> None:
        with pytest.raises(TeacherError, match="has no feature maps, which dense_weight 1 asks for"):
            distilling(teacher="crossvit_9_240.in1k", dense_weight=1.0)

    def test_views_of_other_channels(self) -> None:
        with pytest.raises(TeacherError, match=r"looks at RGB, and the views have 4 channels: take a method without"):
            Teacher(SMALL["teacher"]).affine((0.5,) * 4, (0.2,) * 4)

    def test_a_side_that_is_no_multiple_of_the_patch(self, vit: str) -> None:
        with pytest.raises(
            TeacherError, match=r"takes no images of 40 px .its patches are 16 px wide.: choose another"
        ):
            Teacher(vit).open(40)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_images_of_other_channels(self, channels: int, tmp_path: Path) -> None:
        network = create_model("resnet8", num_classes=0, in_chans=channels)
        timm.models.save_for_hf(network, tmp_path / "teacher", safe_serialization=True)
        with pytest.raises(TeacherError, match=rf"images of {channels} channels?, and a teacher is shown RGB: name"):
            Teacher(str(tmp_path / "teacher"))

    def test_weights_that_are_fetched_by_hand(self) -> None:
        teacher = Teacher("resnet50_lewel_b.in1k_400ep")
        with pytest.raises(TeacherError, match=r"run `ssl-backbones import resnet50_lewel_b.in1k_400ep FILE`"):
            teacher.open(64)

    def test_kept_features_have_no_maps(self) -> None:
        with pytest.raises(ValueError, match=r"dense_weight is 1.0, but must be 0 where features are kept"):
            DistilledConfig(kept="beside", dense_weight=1.0)

    @pytest.mark.parametrize("name", ["vit_small_patch14_dinov2.lvd142m", "hf-hub:org/name"])
    def test_a_name_is_no_part_of_a_run_s_folder(self, name: str, tmp_path: Path) -> None:
        tiny(DistilledConfig, image_folder(tmp_path / "photos"), Path("."), {"teacher": name})

    @pytest.mark.parametrize("named", ["{}", "local-dir:{}", "{}/backbone", "local-dir:{}/backbone"])
    def test_the_run_s_own_network(self, named: str, tmp_path: Path) -> None:
        data = image_folder(tmp_path / "photos")
        (tmp_path / "run" / "backbone").mkdir(parents=True)
        with pytest.raises(
            ValueError, match=r"given to distilled is .*, but must be another network than the one that"
        ):
            tiny(DistilledConfig, data, tmp_path / "run", {"teacher": named.format(tmp_path / "run")})

    def test_another_than_the_run_began_with(self, tmp_path: Path) -> None:
        data = image_folder(tmp_path / "photos")
        recipe = tiny(DistilledConfig, data, tmp_path / "run", {"teacher": leave_teacher(tmp_path / "teacher")})
        stop(recipe, 4)
        leave_teacher(tmp_path / "teacher", seed=8)
        with pytest.raises(TeacherError, match="is not the one that the run began with"):
            run(recipe)
        leave_teacher(tmp_path / "teacher")
        run(recipe)

    def test_before_the_run_s_folder_is_made(self, tmp_path: Path) -> None:
        data = image_folder(tmp_path / "photos")
        recipe = tiny(DistilledConfig, data, tmp_path / "run", {"teacher": "resnet9000"})
        with pytest.raises(UnfitError, match="resnet9000"):
            run(recipe)
        assert not (tmp_path / "run").exists()


# What is told of it


@pytest.mark.parametrize(("classes", "labels"), [(0, "not recorded"), (10, "classes")])
def test_the_card_tells_of_the_teacher_and_claims_no_self_supervision(
    classes: int, labels: str, tmp_path: Path
) -> None:
    teacher = leave_teacher(tmp_path / "seer", classes=classes, license="cc-by-nc-4.0", origin_url="https://a.b/seer")
    run(tiny(DistilledConfig, image_folder(tmp_path / "photos"), tmp_path / "run", {"teacher": teacher}))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    told = results["teacher"]
    assert (told["licence"], told["source"], told["labels"]) == ("cc-by-nc-4.0", "https://a.b/seer", labels)
    assert told["sha256"] == weights_sha256(create_model(teacher, pretrained=True, num_classes=0))
    assert results["taught"] == {
        "layer": "the last",
        "output": "pooled",
        "of": "every view",
        "size": 32,
        "multiple_of": 1,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.2, 0.3],
    }
    card = (tmp_path / "run" / "README.md").read_text()
    assert "It learnt from the features of seer (resnet8)" in card
    assert "https://a.b/seer" in card
    assert "license: cc-by-nc-4.0" in card
    assert "self-supervised" not in card


def test_a_run_of_which_no_licence_can_be_given_is_told_so_and_keeps_its_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = leave_teacher(tmp_path / "begun", seed=8, license="cc-by-nc-4.0")
    choices = {"teacher": leave_teacher(tmp_path / "seer", license="dinov3-license"), "kept": str(tmp_path / "kept")}
    run(tiny(DistilledConfig, image_folder(tmp_path / "photos"), tmp_path / "run", choices, init=start))
    before, told, _ = capsys.readouterr().out.partition(
        "warning: no licence is known that fits what is made of begun (cc-by-nc-4.0)"
    )
    assert told
    assert "to keep its features" not in before
    assert (tmp_path / "run" / "results.json").is_file()
    config = json.loads((tmp_path / "run" / "backbone" / "config.json").read_text())
    assert "license" not in config["pretrained_cfg"]
