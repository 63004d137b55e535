"""The networks for small images are those of the papers: sizes, names, shapes and first weights."""

import math

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import ssl_backbones

PARAMETERS = {"resnet8": 77_392, "resnet20": 271_824, "resnet32": 466_256, "resnet56": 855_120}
KEYS = {"resnet8": 54, "resnet20": 126, "resnet32": 198, "resnet56": 342}


def expected_shapes(blocks: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, written out from the definition."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (16, 3, 3, 3)
    norm("bn1", 16)
    before = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, before, 3, 3)
            norm(f"{name}.bn1", width)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{name}.bn2", width)
            if width != before:
                shapes[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                norm(f"{name}.downsample.1", width)
            before = width
    return shapes


def literal_forward(weights: dict[str, torch.Tensor], x: torch.Tensor, blocks: int) -> torch.Tensor:
    """The network in eval mode, operation by operation, in terms of its tensors alone."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    x = norm("bn1", F.conv2d(x, weights["conv1.weight"], padding=1)).clamp(min=0)
    for stage in (1, 2, 3):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = norm(f"{name}.bn1", F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)).clamp(min=0)
            y = norm(f"{name}.bn2", F.conv2d(y, weights[f"{name}.conv2.weight"], padding=1))
            if stride == 2:
                shortcut = weights[f"{name}.downsample.0.weight"]
                x = norm(f"{name}.downsample.1", F.conv2d(x[..., ::2, ::2], shortcut))
            x = (x + y).clamp(min=0)
    return x.mean((2, 3))


def shuffled_statistics(model: nn.Module) -> nn.Module:
    """The model with running statistics and affine weights that differ from their defaults."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    return model


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_names_and_shapes(name):
    model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert len(shapes) == KEYS[name]
    assert shapes == expected_shapes((int(name.removeprefix("resnet")) - 2) // 6)


@pytest.mark.parametrize(("name", "blocks"), [("resnet8", 1), ("resnet20", 3)])
@pytest.mark.parametrize("size", [32, 17])
def test_agrees_with_the_network_written_out(name, blocks, size):
    model = shuffled_statistics(timm.create_model(name)).double().eval()
    x = torch.sin(0.01 * torch.arange(2 * 3 * size * size, dtype=torch.float64)).reshape(2, 3, size, size)
    torch.testing.assert_close(model(x), literal_forward(model.state_dict(), x, blocks), rtol=1e-10, atol=1e-12)


def test_convolutions_start_at_kaiming_fan_out_and_norms_at_one():
    torch.manual_seed(0)
    model = timm.create_model("resnet56")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            side = module.kernel_size[0]
            wanted = math.sqrt(2 / (side * side * module.out_channels))
            draws = module.weight.numel()
            assert abs(module.weight.std() / wanted - 1) < 4 / math.sqrt(2 * draws), name
            assert abs(module.weight.mean()) < 4 * wanted / math.sqrt(draws), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
            assert (module.bias == 0).all(), name


def test_last_norms_start_at_zero_on_request():
    model = timm.create_model("resnet8", zero_init_last=True)
    assert (model.layer2[0].bn2.weight == 0).all()
    assert (model.layer2[0].bn1.weight == 1).all()


def test_stage_shapes_at_96():
    model = timm.create_model("resnet8", features_only=True)
    shapes = [tuple(feature.shape[1:]) for feature in model(torch.zeros(1, 3, 96, 96))]
    assert shapes == [(16, 96, 96), (16, 96, 96), (32, 48, 48), (64, 24, 24)]


def test_headless_by_default_and_with_a_head_on_request():
    assert timm.create_model("resnet8")(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
    assert timm.create_model("resnet8", num_classes=7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("output_stride", [1, 2, 4, 8, 32])
def test_dilation_keeps_every_tap_in_place(output_stride):
    """A dilated network is the strided one computed at more places: it agrees where both have an output."""
    strided = shuffled_statistics(timm.create_model("resnet20")).double().eval()
    dilated = timm.create_model("resnet20", output_stride=output_stride).double().eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    step = 4 // min(output_stride, 4)
    torch.testing.assert_close(dilated.forward_features(x)[..., ::step, ::step], strided.forward_features(x))
    assert dilated.feature_info[-1]["reduction"] == min(output_stride, 4)


@given(st.integers(1, 41), st.integers(1, 41), st.integers(1, 6), st.sampled_from([1, 2, 4, 16]))
@settings(max_examples=30, deadline=None)
def test_any_size_gives_maps_of_the_stated_stride(height, width, channels, output_stride):
    model = timm.create_model("resnet8", in_chans=channels, output_stride=output_stride).eval()
    _, maps = model.forward_intermediates(torch.zeros(1, channels, height, width))
    for feature, info in zip(maps, model.feature_info, strict=True):
        stride = info["reduction"]
        assert feature.shape == (1, info["num_chs"], math.ceil(height / stride), math.ceil(width / stride))


def test_an_impossible_output_stride_is_refused():
    with pytest.raises(ValueError, match="output_stride is 3, but must be 1, 2, 4, 8, 16 or 32"):
        timm.create_model("resnet8", output_stride=3)


def test_drop_path_grows_with_depth():
    model = timm.create_model("resnet20", drop_path_rate=0.4)
    rates = [
        block.drop_path.drop_prob if block.drop_path else 0.0
        for stage in "123"
        for block in model.get_submodule(f"layer{stage}")
    ]
    assert rates == pytest.approx([0.05 * step for step in range(9)])


def test_dropout_acts_in_training_alone():
    model = timm.create_model("resnet8", drop_rate=0.5)
    features = torch.ones(1, 64, 8, 8)
    assert (model.train().forward_head(features) == 0).any()
    assert (model.eval().forward_head(features) == 1).all()


def test_device_and_dtype():
    model = timm.create_model("resnet8", num_classes=3, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    model.reset_classifier(5)
    assert (model.fc.weight.device.type, model.fc.weight.dtype) == ("meta", torch.bfloat16)


def test_channels_last_gives_the_same():
    model = ssl_backbones.create_model("resnet8").eval()
    x = torch.randn(2, 3, 32, 32)
    wanted = model(x)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(x), wanted, rtol=1e-4, atol=1e-5)
