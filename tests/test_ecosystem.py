"""Libraries that build on timm take our names and our folders as they take timm's own.

They are the extra `ecosystem`; without it these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from conftest import drawn_image
from hub_state import Repository
from published import here
from torch import Tensor, nn

import ssl_backbones
from ssl_backbones.hub.export import save_backbone

NAMES = ("resnet18_lewel_b", "resnet50_lewel_b")
MISSING = "needs the extra `ecosystem`: pip install -e '.[ecosystem]'"
PREPARATION: dict[str, Any] = {
    "input_size": (3, 48, 48),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "interpolation": "bicubic",
    "crop_pct": 0.8,
}


@pytest.fixture(scope="module")
def smp() -> Any:
    """segmentation_models_pytorch."""
    return pytest.importorskip("segmentation_models_pytorch", reason=MISSING)


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The library of that name."""
    return pytest.importorskip("transformers", reason=MISSING)


class Saved:
    """A network with weights and statistics of its own, and the folder that a run would have written of it."""

    def __init__(self, architecture: str, folder: Path) -> None:
        torch.manual_seed(len(architecture))
        self.network: Any = timm.create_model(architecture, num_classes=0)
        with torch.no_grad():
            self.network(images(4))  # the running statistics leave their defaults
        self.network.eval()
        self.folder = save_backbone(self.network, folder / architecture, architecture, **PREPARATION)
        self.overlay = {"file": str(self.folder / "model.safetensors")}

    def maps(self, indices: list[int]) -> list[Tensor]:
        """Outputs for two images, from the network itself."""
        maps: list[Tensor] = self.network.forward_intermediates(images(), indices, intermediates_only=True)
        return maps


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    folder = tmp_path_factory.mktemp("saved")
    return {architecture: Saved(architecture, folder) for architecture in ("resnet8", "resnet18")}


def images(batch: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, 64, 64, generator=torch.Generator().manual_seed(0))


def check_gradients(model: nn.Module, loss: Tensor) -> None:
    """Every parameter is reached, and by a number."""
    loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


def check_maps(found: Any, wanted: list[Tensor]) -> None:
    assert [tuple(each.shape) for each in found] == [tuple(each.shape) for each in wanted]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


# segmentation_models_pytorch


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        *((name, "Unet", {}) for name in NAMES),
        ("resnet18_lewel_b", "FPN", {}),
        ("resnet50_lewel_b", "DeepLabV3Plus", {"encoder_output_stride": 8}),
        ("resnet18_lewel_b", "Unet", {"in_channels": 5}),
    ],
    ids=["Unet", "Unet, large", "FPN", "DeepLabV3Plus, large", "five channels"],
)
def test_a_segmentation_network_on_our_names(name: str, kind: str, more: dict[str, Any], smp: Any) -> None:
    model = getattr(smp, kind)(f"tu-{name}", encoder_weights=None, classes=3, **more)
    scores = model(images(channels=more.get("in_channels", 3)))
    assert scores.shape == (2, 3, 64, 64)
    assert model.encoder.output_stride == more.get("encoder_output_stride", 32)
    check_gradients(model, scores.square().mean())


def test_a_segmentation_encoder_has_our_weights(smp: Any, saved: dict[str, Saved]) -> None:
    ours = saved["resnet18"]
    wanted = [images(), *ours.maps([0, 1, 2, 3, 4])]
    by_name = smp.encoders.get_encoder("tu-resnet18_lewel_b", weights=True, pretrained_cfg_overlay=ours.overlay)
    by_folder = smp.encoders.get_encoder(f"tu-local-dir:{ours.folder}", weights=True)
    for encoder in (by_name, by_folder):
        check_maps(encoder.eval()(images()), wanted)


def test_a_segmentation_encoder_never_has_random_weights_for_published_ones(smp: Any, saved: dict[str, Saved]) -> None:
    with pytest.raises(ssl_backbones.PretrainedWeightsError, match="pretrained_cfg_overlay"):
        smp.Unet("tu-resnet101_lewel_b", encoder_weights=True)
    with pytest.raises(ssl_backbones.PretrainedWeightsError, match="not the weights"):
        smp.encoders.get_encoder("tu-resnet50_lewel_b", weights=True, pretrained_cfg_overlay=saved["resnet18"].overlay)


def test_segmentation_prepares_images_as_our_configuration_says(smp: Any) -> None:
    name = ssl_backbones.list_models("resnet50_moco_v2.*", pretrained=True)[0]
    params = smp.encoders.get_preprocessing_params(f"tu-{name}")
    cfg = timm.get_pretrained_cfg(name)
    assert (params["mean"], params["std"], params["input_range"]) == (list(cfg.mean), list(cfg.std), [0, 1])


def test_a_network_for_small_images_lends_its_maps_to_a_decoder(smp: Any, saved: dict[str, Saved]) -> None:
    """`tu-` wants strides 2 to 32, or 1, 2, 4 without a stem of the same stride: a decoder takes what it is given."""
    with pytest.raises(ValueError, match="downsampling pattern"):
        smp.Unet("tu-resnet8_lewel_b", encoder_weights=None)
    encoder = timm.create_model(
        "resnet8_lewel_b",
        pretrained=True,
        pretrained_cfg_overlay=saved["resnet8"].overlay,
        features_only=True,
        out_indices=(1, 2, 3),
    )
    check_maps(encoder.eval()(images()), saved["resnet8"].maps([1, 2, 3]))
    decoder = smp.decoders.unet.decoder.UnetDecoder(encoder.feature_info.channels(), (32, 16), n_blocks=2)
    scores = decoder(encoder.train()(images()))
    assert scores.shape == (2, 16, 64, 64)
    check_gradients(nn.ModuleList([encoder, decoder]), scores.square().mean())


# transformers


@pytest.mark.parametrize("name", ["resnet8_lewel_b", *NAMES])
def test_a_timm_backbone_of_our_names(name: str, transformers: Any) -> None:
    config = transformers.TimmBackboneConfig(backbone=name, out_indices=[1, 2, 3])
    for model in (transformers.TimmBackbone(config), transformers.AutoBackbone.from_config(config)):
        maps = model(images()).feature_maps
        assert model.out_features == ["layer1", "layer2", "layer3"]
        assert [each.shape[1] for each in maps] == model.channels
    check_gradients(model, sum(each.square().mean() for each in maps))


@pytest.mark.parametrize("architecture", ["resnet8", "resnet18"])
def test_a_timm_backbone_has_our_weights(architecture: str, transformers: Any, saved: dict[str, Saved]) -> None:
    ours = saved[architecture]
    by_name = transformers.TimmBackbone.from_pretrained(
        f"{architecture}_lewel_b", out_indices=(1, 3), pretrained_cfg_overlay=ours.overlay
    )
    check_maps(by_name.eval()(images()).feature_maps, ours.maps([1, 3]))
    by_folder = transformers.TimmBackbone.from_pretrained(f"local-dir:{ours.folder}", out_indices=(1, 3))
    # transformers resets the running statistics of timm's own networks: docs/elsewhere.md has the way out.
    whole = timm.create_model(f"local-dir:{ours.folder}", pretrained=True, features_only=True, out_indices=(1, 3))
    by_folder._backbone.load_state_dict(whole.state_dict())
    check_maps(by_folder.eval()(images()).feature_maps, ours.maps([1, 3]))
    with pytest.raises(ssl_backbones.PretrainedWeightsError):
        transformers.TimmBackbone.from_pretrained("resnet101_lewel_b")


@pytest.mark.parametrize("name", ["resnet8_lewel_b", "resnet50_lewel_b"])
def test_a_timm_wrapper_of_our_names(name: str, transformers: Any) -> None:
    model = transformers.TimmWrapperModel(transformers.TimmWrapperConfig(architecture=name))
    output = model(images(), output_hidden_states=True)
    assert output.pooler_output.shape == (2, model.timm_model.num_features)
    assert len(output.hidden_states) == len(model.timm_model.feature_info)
    check_gradients(model, output.pooler_output.square().mean())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, saved: dict[str, Saved]) -> Iterator[None]:
    """A Hub that holds the folders as org/resnet8 and org/resnet18, and nothing else."""
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=True)  # keeps the address it first saw
    with here(token=None) as (_, state):
        for architecture, each in saved.items():
            state.repositories[f"org/{architecture}"] = repository = Repository()
            repository.commit({path.name: path.read_bytes() for path in each.folder.iterdir()})
        yield


def check_auto(transformers: Any, ours: Saved, place: str, **where: Any) -> None:
    """Model, configuration and preparation of images are those of a folder or of a repository."""
    model = transformers.AutoModel.from_pretrained(place, **where).eval()
    config = transformers.AutoConfig.from_pretrained(place, **where)
    processor = transformers.AutoImageProcessor.from_pretrained(place, **where)
    assert (type(model).__name__, config.num_labels) == ("TimmWrapperModel", 0)
    output = model(images())
    assert torch.equal(output.pooler_output, ours.network(images()))
    assert torch.equal(output.last_hidden_state, ours.network.forward_features(images()))
    picture = drawn_image(1, 80, 60)
    prepare = timm.data.create_transform(**timm.data.resolve_data_config(PREPARATION))
    assert torch.equal(processor(picture)["pixel_values"], prepare(picture)[None])


@pytest.mark.parametrize("architecture", ["resnet8", "resnet18"])
def test_a_folder_opens_by_the_auto_classes(architecture: str, transformers: Any, saved: dict[str, Saved]) -> None:
    check_auto(transformers, saved[architecture], str(saved[architecture].folder))


@pytest.mark.parametrize("architecture", ["resnet8", "resnet18"])
def test_a_repository_opens_by_the_auto_classes(
    architecture: str, transformers: Any, hub: None, saved: dict[str, Saved], tmp_path: Path
) -> None:
    check_auto(transformers, saved[architecture], f"org/{architecture}", cache_dir=str(tmp_path))


def test_an_auto_backbone_that_the_hub_does_not_know_is_ours(
    transformers: Any, hub: None, saved: dict[str, Saved]
) -> None:
    more = {"out_indices": (1, 2), "pretrained_cfg_overlay": saved["resnet18"].overlay}
    model = transformers.AutoBackbone.from_pretrained("resnet18_lewel_b", **more).eval()
    check_maps(model(images()).feature_maps, saved["resnet18"].maps([1, 2]))


def test_a_classifier_is_fine_tuned_and_its_weights_come_back(
    transformers: Any, saved: dict[str, Saved], tmp_path: Path
) -> None:
    ours = saved["resnet18"]
    model = transformers.AutoModelForImageClassification.from_pretrained(ours.folder, num_labels=4)
    weights = model.timm_model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in ours.network.state_dict().items())
    check_gradients(model, model(images(), labels=torch.tensor([0, 3])).loss)
    with torch.no_grad():
        model.timm_model.conv1.weight.mul_(2)
    model.save_pretrained(tmp_path)
    kept = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert kept.keys() == {*ours.network.state_dict(), "fc.weight", "fc.bias"}
    overlay = {"file": str(tmp_path / "model.safetensors")}
    back: Any = ssl_backbones.create_model("resnet18_lewel_b", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(back.conv1.weight, 2 * ours.network.conv1.weight)
    assert torch.equal(back.layer4[1].conv2.weight, ours.network.layer4[1].conv2.weight)


@pytest.mark.parametrize("kind", ["UperNet", "Detr"])
def test_a_model_of_transformers_stands_on_our_backbone(kind: str, transformers: Any) -> None:
    backbone = transformers.TimmBackboneConfig(backbone="resnet18_lewel_b", out_indices=[1, 2, 3, 4])
    if kind == "UperNet":
        sizes = {"hidden_size": 16, "pool_scales": [1, 2], "auxiliary_channels": 8, "auxiliary_in_channels": 256}
        config = transformers.UperNetConfig(backbone_config=backbone, num_labels=3, **sizes)
        model = transformers.UperNetForSemanticSegmentation(config)
        labels: Any = torch.zeros(2, 64, 64, dtype=torch.long)
    else:
        depth = {f"{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
        sizes = {**depth, "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 5}
        config = transformers.DetrConfig(backbone_config=backbone, num_labels=3, **sizes)
        model = transformers.DetrForObjectDetection(config)
        labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}] * 2
    check_gradients(model, model(images(), labels=labels).loss)
