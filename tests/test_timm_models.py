"""Every name of this package behaves as timm expects of a model.

The whole set of checks runs for one method per backbone, since the entries differ in nothing else; of all names, what
timm is asked to make.
"""

import math
from types import SimpleNamespace

import pytest
import timm
import torch
from packaging.version import Version
from timm.models import FeatureInfo, group_parameters, resnet
from timm.optim import create_optimizer_v2

import ssl_backbones
from ssl_backbones.methods import METHODS
from ssl_backbones.models import small_resnet
from ssl_backbones.registry.backbones import BACKBONES, SMALL
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.tags import TAGS
from ssl_backbones.weightless import weightless

NAMES = ssl_backbones.list_models()
BARE = [name for name in NAMES if "_" not in name]
ONE_EACH = [f"{backbone}_lewel_b" for backbone in BACKBONES]
REPEATED = ("resnet34", "resnet56", "resnet101", "resnet152", "wide")
LIGHT = [name for name in ONE_EACH if name.split("_")[0] not in REPEATED]
"""Without the five that repeat the blocks and stages of others, where building them is what costs."""
SOME = [pytest.param(name, marks=pytest.mark.slow if name.startswith("resnet50") else ()) for name in LIGHT]
SIZE = 64
TIMMS_OWN = [name for name in LIGHT if name.split("_")[0] not in SMALL]
since_1_0_31 = pytest.mark.skipif(
    Version(timm.__version__) < Version("1.0.31"), reason="timm before 1.0.31 tells a wrong width of its own ResNets"
)


def images(batch: int = 1, channels: int = 3, size: int = SIZE) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def features_of(output) -> list[torch.Tensor]:
    return list(output.values()) if isinstance(output, dict) else list(output)


def check_features(features, info, size: int = SIZE) -> None:
    """Each map has the channels and the stride that the model states."""
    assert len(features) == len(info.channels())
    for feature, channels, reduction in zip(features, info.channels(), info.reduction(), strict=True):
        assert feature.shape[1] == channels
        assert feature.shape[2:] == (math.ceil(size / reduction),) * 2
        assert feature.isfinite().all()


def test_every_backbone_has_every_method():
    trained = {f"{backbone}_{method}" for backbone in BACKBONES for method in METHODS}
    elsewhere = {tag.architecture for tag in TAGS if tag.origin}
    assert sorted(NAMES) == sorted({*BARE, *trained, *elsewhere})
    assert set(NAMES) <= set(timm.list_models())


def shapes_of(name: str, **kwargs) -> list[tuple[str, torch.Size]]:
    """The names and shapes of a network's state, in order."""
    with weightless():
        return [(key, value.shape) for key, value in timm.create_model(name, **kwargs).state_dict().items()]


@pytest.mark.parametrize("name", [*ONE_EACH, *(f"resnet8_{method}" for method in METHODS if method != "lewel_b")])
def test_builds_headless_with_the_names_of_its_backbone(name):
    assert shapes_of(name) == shapes_of(Name.parse(name).arch, num_classes=0)


def test_every_name_asks_timm_for_its_backbone_headless(monkeypatch):
    """Class, number of classes and arguments of the network for every name."""

    def note(kind, variant, pretrained, pretrained_cfg=None, **kwargs):
        aside = ("pretrained_cfg_overlay", "cache_dir", "feature_cfg")
        given = {key: value for key, value in kwargs.items() if key not in aside}
        return SimpleNamespace(
            asked=(kind, variant, {"num_classes": getattr(pretrained_cfg, "num_classes", 1000)} | given)
        )

    for module in (resnet, small_resnet):
        monkeypatch.setattr(module, "build_model_with_cfg", note)
    for name in NAMES:
        kind, variant, given = timm.create_model(Name.parse(name).arch, num_classes=0).asked
        usual = {} if name in BARE else {"zero_init_last": False}
        assert timm.create_model(name).asked == (kind, variant, given | usual), name


@pytest.mark.parametrize("name", ONE_EACH)
def test_features_have_the_stated_shapes(name):
    with weightless():
        model = timm.create_model(name, features_only=True).eval()
        features = model(images().to("meta"))
    info = model.feature_info
    stated = zip(info.channels(), info.reduction(), strict=True)
    assert [feature.shape[1:] for feature in features] == [(count, SIZE // by, SIZE // by) for count, by in stated]


@pytest.mark.parametrize("name", LIGHT)
def test_forward_with_and_without_checkpointing(name):
    model = timm.create_model(name).eval()
    x = images()
    output = model(x)
    assert output.shape == (1, model.num_features)
    assert output.isfinite().all()
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LIGHT)
def test_backward_reaches_every_parameter(name):
    with weightless():  # the graph alone is asked for
        model = timm.create_model(name, num_classes=42).train()
        output = model(torch.zeros(2, 3, 32, 32))
    output.mean().backward()
    assert output.shape == (2, 42)
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ["resnet8_lewel_b", "resnet18_lewel_b"])
def test_checkpointing_gives_the_same_gradients(name):
    model = timm.create_model(name, num_classes=3).double().train()
    x, gradients = images(2, size=32).double(), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", ONE_EACH)
def test_the_stated_configuration_is_true(name):
    with weightless():
        model = timm.create_model(name).eval()
        cfg = model.default_cfg
        features = model.forward_features(torch.zeros(1, *cfg["input_size"]))
        pooled = model.forward_head(features, pre_logits=True)
    assert features.shape == (1, model.num_features, *cfg["pool_size"])
    assert pooled.shape == (1, model.head_hidden_size)
    assert f"{cfg['first_conv']}.weight" in model.state_dict()
    assert model.get_classifier(name_only=True) == cfg["classifier"] == "fc"
    assert cfg["interpolation"] == "bilinear"
    assert cfg["license"]
    assert cfg["mean"] == timm.data.IMAGENET_DEFAULT_MEAN


def test_usual_input_sizes():
    small, large = timm.get_pretrained_cfg("resnet20_byol"), timm.get_pretrained_cfg("resnet50_byol")
    assert (small.input_size, small.pool_size, small.crop_pct) == ((3, 32, 32), (8, 8), 1.0)
    assert (large.input_size, large.pool_size, large.crop_pct) == ((3, 224, 224), (7, 7), 0.875)


@pytest.mark.parametrize("name", LIGHT)
def test_classifier_is_put_on_and_taken_off(name):
    model = timm.create_model(name, num_classes=10).eval()
    x, width = images(size=32), model.num_features
    assert model(x).shape == (1, 10)
    assert "fc.weight" in model.state_dict()
    model.reset_classifier(5)
    assert model.num_classes == model(x).shape[1] == 5
    assert model.get_classifier() is model.fc
    model.reset_classifier(0)
    assert model(x).shape == (1, width)
    model.reset_classifier(0, "max")
    torch.testing.assert_close(model(x), model.forward_features(x).amax((2, 3)))
    model.reset_classifier(0, "")
    assert model(x).ndim == 4
    unpooled = timm.create_model(name, global_pool="").eval()
    assert unpooled(x).shape == model(x).shape


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=since_1_0_31 if name in TIMMS_OWN else ()) for name in LIGHT]
)
def test_the_width_of_two_poolings_is_told(name):
    with weightless():
        model = timm.create_model(name).eval()
        model.reset_classifier(0, "catavgmax")
        assert model(images(size=32).to("meta")).shape == (1, model.head_hidden_size) == (1, 2 * model.num_features)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("feature_cls", ["list", "dict", "hook", "fx", "getter"])
def test_features_only(name, feature_cls):
    model = timm.create_model(name, features_only=True, feature_cls=feature_cls).eval()
    assert len(model.feature_info.channels()) >= 4
    check_features(features_of(model(images())), model.feature_info)


@pytest.mark.parametrize("name", ["resnet8_lewel_b", "resnet18_lewel_b"])
def test_all_ways_to_features_agree(name):
    torch.manual_seed(0)
    reference = timm.create_model(name).eval()
    x, wanted = images(), None
    for feature_cls in ("list", "dict", "hook", "fx", "getter"):
        overlay = {"state_dict": reference.state_dict()}
        extractor = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True, feature_cls=feature_cls
        )
        features = features_of(extractor.eval()(x))
        wanted = wanted or features
        torch.testing.assert_close(features, wanted)
    torch.testing.assert_close(wanted[-1], reference.forward_features(x))
    torch.testing.assert_close(wanted, reference.forward_intermediates(x, intermediates_only=True))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("out_indices", [(0, 2), (-2, -1), 2])
@pytest.mark.parametrize("feature_cls", ["list", "getter"])
def test_chosen_features(name, out_indices, feature_cls):
    model = timm.create_model(name, features_only=True, feature_cls=feature_cls, out_indices=out_indices).eval()
    features = model(images(size=32))
    assert len(features) == 2
    check_features(features, model.feature_info, size=32)


@pytest.mark.parametrize("name", SOME)
def test_forward_intermediates(name):
    model = timm.create_model(name).eval()
    info, x = FeatureInfo(model.feature_info, len(model.feature_info)), images()
    final, maps = model.forward_intermediates(x)
    check_features(maps, info)
    torch.testing.assert_close(final, model.forward_features(x))
    for indices, taken in ((2, maps[-2:]), ([0, 2], [maps[0], maps[2]]), ([-1], maps[-1:])):
        torch.testing.assert_close(model.forward_intermediates(x, indices, intermediates_only=True), taken)
    stopped, early = model.forward_intermediates(x, [1], stop_early=True)
    torch.testing.assert_close([stopped], early)
    torch.testing.assert_close(early, maps[1:2])
    model.set_grad_checkpointing()
    torch.testing.assert_close(model.forward_intermediates(x)[1], maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet8_lewel_b", pytest.param("resnet18_lewel_b", marks=since_1_0_31)])
@pytest.mark.parametrize("indices", [[0], [1], [1, 2], 1, 2])
def test_pruning_keeps_the_features_asked_for(name, indices):
    model, x = timm.create_model(name, num_classes=4).eval(), images(size=32)
    before = model.forward_intermediates(x, indices, intermediates_only=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kept = model.prune_intermediate_layers(indices)
    torch.testing.assert_close(model.forward_intermediates(x, kept, intermediates_only=True), before)
    assert sum(parameter.numel() for parameter in model.parameters()) < parameters
    assert model.num_classes == 0
    assert model(x).shape == before[-1].shape
    assert model.num_features == before[-1].shape[1]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("in_chans", [1, 5])
def test_other_numbers_of_channels(name, in_chans):
    model = timm.create_model(name, in_chans=in_chans).eval()
    assert model.in_chans == in_chans
    assert model(images(channels=in_chans, size=32)).isfinite().all()


@pytest.mark.parametrize("name", SOME)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(name):
    model = timm.create_model(name, num_classes=3, scriptable=True).eval()
    scripted, x = torch.jit.script(model), images(size=32)
    torch.testing.assert_close(scripted(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ONE_EACH)
def test_parameters_are_grouped_by_depth(name):
    with weightless():
        model = timm.create_model(name, num_classes=3)
    blocks = {tuple(key.split(".")[:2]) for key, _ in model.named_parameters() if key.startswith("layer")}
    stages = {stage for stage, _ in blocks}
    for coarse, middle in ((False, len(blocks)), (True, len(stages))):
        depth = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert set(depth) == {key for key, _ in model.named_parameters()}
        assert depth["conv1.weight"] == depth["bn1.bias"] == 0
        assert depth["fc.weight"] == middle + 1
        assert depth["layer1.0.conv1.weight"] == 1
        assert depth["layer3.0.conv1.weight"] > depth["layer2.0.conv1.weight"] > 1


@pytest.mark.parametrize("name", ["resnet20_lewel_b", "resnet18_lewel_b"])
def test_layer_wise_learning_rates(name):
    model = timm.create_model(name, num_classes=3)
    optimizer = create_optimizer_v2(model, "sgd", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scale = {id(parameter): group["lr_scale"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    assert scale[id(model.fc.weight)] == 1.0
    deeper = [model.conv1.weight, model.layer1[0].conv1.weight, model.layer3[0].conv1.weight, model.fc.weight]
    assert [scale[id(parameter)] for parameter in deeper] == sorted({scale[id(parameter)] for parameter in deeper})


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride(name, output_stride):
    model = timm.create_model(name, features_only=True, output_stride=output_stride).eval()
    reductions = model.feature_info.reduction()
    assert reductions[-1] == min(output_stride, 4 if name.partition("_")[0] in BARE else 32)
    check_features(model(images()), model.feature_info)


@pytest.mark.parametrize("name", [name for name in ONE_EACH if name.partition("_")[0] not in BARE][:3])
def test_no_last_norm_starts_at_zero(name):
    model = timm.create_model(name)
    norms = {key: value for key, value in model.named_parameters() if key.endswith(("bn2.weight", "bn3.weight"))}
    assert all((weight == 1).all() for weight in norms.values())
