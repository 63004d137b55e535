"""Names, descriptions, and what is said when a name or its weights are not to be had."""

import dataclasses
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
import timm
import torch
from huggingface_hub import errors
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file

import ssl_backbones
from ssl_backbones import PretrainedWeightsError, UnknownModelError, __main__, methods
from ssl_backbones.catalogue.description import Description
from ssl_backbones.catalogue.lookup import _is_ours, tags_of
from ssl_backbones.commands import compare
from ssl_backbones.commands.compare import comparison_of
from ssl_backbones.hub import bundle, formats
from ssl_backbones.hub.sidecar import ExportError
from ssl_backbones.methods import METHODS
from ssl_backbones.models.build import whole_backbone
from ssl_backbones.registry.backbones import BACKBONES
from ssl_backbones.registry.errors import explain_weights
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.registry.tags import TAGS, Tag
from ssl_backbones.weightless import weightless


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag.name)
def test_every_tag_is_known_to_timm(tag):
    assert tag.method in (PAPERS if tag.origin else METHODS)
    cfg = timm.get_pretrained_cfg(tag.name)
    assert (cfg.architecture, f"{tag.architecture}.{cfg.tag}") == (tag.architecture, tag.name)
    assert cfg.license == tag.licence
    assert cfg.paper_ids == PAPERS[tag.method].url
    assert bool(cfg.has_weights) == (tag.source is not None)


def test_tags_are_unique_and_frozen():
    names = [tag.name for tag in TAGS]
    assert len(names) == len(set(names))
    with pytest.raises(dataclasses.FrozenInstanceError):
        TAGS[0].epochs = 1


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag.name)
def test_a_tag_names_weights_that_somebody_has(tag):
    assert tag.file or tag.hf_hub_id or tag.origin


def test_a_published_tag_becomes_the_one_of_the_bare_name(monkeypatch):
    published = dataclasses.replace(TAGS[-1], hf_hub_id="org/name@0123")
    monkeypatch.setattr("ssl_backbones.registry.tags.TAGS", (*TAGS[:-1], published))
    assert tags_of(published.architecture)[0] is published
    assert published.source == "https://huggingface.co/org/name"


def test_list_models():
    assert ssl_backbones.list_models("resnet50_*") == [f"resnet50_{method}" for method in sorted(PAPERS)]
    assert ssl_backbones.list_models("resnet18_*") == [f"resnet18_{method}" for method in sorted(METHODS)]
    assert "resnet50_lewel_b.in1k_400ep" in ssl_backbones.list_models("resnet50_lewel_b.*")
    assert ssl_backbones.list_models(["*_byol", "resnet8"])[:2] == ["resnet8", "resnet8_byol"]
    assert ssl_backbones.list_models("nothing*") == []
    assert "resnet50" not in ssl_backbones.list_models()
    assert sorted(ssl_backbones.list_models(pretrained=True)) == sorted(tag.name for tag in TAGS if tag.source)


def test_describe_states_the_facts():
    described = ssl_backbones.describe("resnet50_lewel_b.in1k_400ep")
    assert (described.method, described.epochs, described.paper_number) == ("LEWEL_B", 400, 73.8)
    text = str(described)
    for fact in ("resnet50_lewel_b.in1k_400ep", "ImageNet-1k, 400 epochs", "NON-COMMERCIAL", "2203.14898", "73.8 %"):
        assert fact in text
    assert "our top-1      not measured" in text
    assert ssl_backbones.describe("resnet50_lewel_b") == described


@pytest.mark.parametrize("name", ssl_backbones.list_models(include_tags=True))
def test_every_name_is_described(name):
    described = ssl_backbones.describe(name)
    assert isinstance(described, Description)
    assert described.name == name
    assert str(described).startswith(f"{name}\n  backbone")


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "resnet18", "test_resnet.r160_in1k"])
def test_a_name_of_timms_is_described_wherever_a_model_is_named(name, tmp_path, monkeypatch):
    cfg = timm.get_pretrained_cfg(name)
    described = ssl_backbones.describe(name)
    assert (described.backbone, described.licence) == (cfg.architecture, "apache-2.0")
    assert (described.data, described.source) == ("ImageNet-1k", f"hf-hub:{cfg.hf_hub_id}")
    assert (cfg.origin_url or "") in str(described)
    assert [row.model for row in comparison_of(compare.Options(models=(name,), data="photos")).rows] == [name]

    def made(name, pretrained, num_classes):
        return timm.create_model("test_resnet", num_classes=num_classes)

    for module in (bundle, formats):
        monkeypatch.setattr(module, "create_model", made)
    if cfg.architecture == "test_resnet":
        assert bundle.write_bundle([name], tmp_path / "bundle") == [tmp_path / "bundle" / name]
    with pytest.raises(ExportError, match=f"this '{cfg.architecture}' is not for torchvision"):
        formats.export(name, "torchvision", tmp_path / "net.pth")


def test_a_network_of_timms_without_weights_is_described_and_a_tag_of_nobodys_is_not():
    assert "no weights published" in str(ssl_backbones.describe("resnet200"))
    with pytest.raises(UnknownModelError, match=r"'resnet18.nobody_in1k'"):
        ssl_backbones.describe("resnet18.nobody_in1k")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet50_lewell_b", "resnet50_lewel_b"),
        ("resnet50_lewel_b.in1k_40ep", "resnet50_lewel_b.in1k_400ep"),
        ("resnet18_bylo", "resnet18_byol"),
    ],
)
@pytest.mark.parametrize("ask", [ssl_backbones.create_model, ssl_backbones.describe])
def test_an_unknown_name_is_answered_with_near_ones(name, near, ask):
    with pytest.raises(UnknownModelError) as caught:
        ask(name)
    assert repr(name) in str(caught.value)
    assert near in str(caught.value)


def test_a_name_like_nothing_and_one_like_a_repository():
    with pytest.raises(UnknownModelError, match="ssl-backbones list"):
        ssl_backbones.create_model("zzz")
    with pytest.raises(UnknownModelError, match="hf-hub:org/name"):
        ssl_backbones.create_model("org/name")


@given(st.text(max_size=40).filter(lambda name: not name.startswith(("hf-hub:", "hf_hub:", "local-dir:", "resnet"))))
@example("")
@example("x" * 5000)
@example("nul\0byte")
@example("a:b")
def test_whatever_is_no_name_is_unknown(name):
    for ask in (ssl_backbones.create_model, ssl_backbones.describe):
        with pytest.raises(UnknownModelError):
            ask(name)


def test_a_folder_without_a_backbone_is_refused(tmp_path):
    with pytest.raises(UnknownModelError, match="holds no backbone"):
        ssl_backbones.create_model(tmp_path)


@pytest.mark.parametrize("create", [ssl_backbones.create_model, timm.create_model])
@pytest.mark.parametrize("name", ["resnet50_lewel_b.in1k_400ep", "resnet50_byol", "resnet20_moco_v2", "resnet8"])
def test_unpublished_weights_say_how_to_get_some(create, name):
    with pytest.raises(PretrainedWeightsError) as caught:
        create(name, pretrained=True)
    for way in (name, "ssl-backbones pretrain", "folder", "pretrained_cfg_overlay=dict(file=PATH)", "pretrained=False"):
        assert way in str(caught.value)


def test_timm_models_are_made_too():
    with weightless():
        assert ssl_backbones.create_model("resnet18.a1_in1k", num_classes=3).num_classes == 3


def error_of_the_hub(kind):
    response = Mock(headers={}, status_code=401)
    try:
        return kind("no", response=response)
    except TypeError:
        return kind("no")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (errors.GatedRepoError, "accept its terms"),
        (errors.RepositoryNotFoundError, "no such repository"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.LocalEntryNotFoundError, "could not be reached"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE"),
        (errors.RemoteEntryNotFoundError, "does not hold the file"),
        (errors.HfHubHTTPError, "refused or failed (HTTP 401)"),
    ],
)
def test_errors_of_the_hub_are_explained(kind, reason):
    cause = error_of_the_hub(kind)
    with pytest.raises(PretrainedWeightsError) as caught, explain_weights("org/name"):
        raise cause
    assert caught.value.__cause__ is cause
    for part in (reason, "'org/name'", "HF_ENDPOINT", "pretrained_cfg_overlay=dict(file=PATH)", "pretrained=False"):
        assert part in str(caught.value)


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), explain_weights("x"):
        raise ZeroDivisionError


def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


def test_offline_is_one_error(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    overlay = {"hf_hub_id": "org/name", "hf_hub_filename": "model.safetensors"}
    with pytest.raises(PretrainedWeightsError, match="not in the local cache"):
        timm.create_model("resnet20_byol", pretrained=True, pretrained_cfg_overlay=overlay, cache_dir=tmp_path)
    with pytest.raises(PretrainedWeightsError, match="not in the local cache"):
        ssl_backbones.create_model("hf-hub:org/name", pretrained=True, cache_dir=tmp_path)


FOUR_CASES = [{}, {"num_classes": 10}, {"features_only": True}, {"in_chans": 1}]


def load(weights, tmp_path, **kwargs):
    file = tmp_path / "model.safetensors"
    save_file(weights, file)
    return timm.create_model("resnet8_byol", pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **kwargs)


@pytest.mark.parametrize("kwargs", FOUR_CASES, ids=str)
def test_a_local_file_loads(kwargs, tmp_path):
    weights = timm.create_model("resnet8").state_dict()
    loaded = load(weights, tmp_path, **kwargs).state_dict()
    assert torch.equal(loaded["layer3.0.conv2.weight"], weights["layer3.0.conv2.weight"])


def renamed(weights):
    return {key.replace("layer3", "stage3"): value for key, value in weights.items()}


def incomplete(weights):
    return {key: value for key, value in weights.items() if not key.startswith("layer2.0.bn1")}


def excessive(weights):
    return {**weights, "layer4.0.conv1.weight": torch.zeros(1)}


def misshapen(weights):
    return {**weights, "layer3.0.conv2.weight": torch.zeros(64, 64, 1, 1)}


def quantised(weights):
    return {**weights, "layer3.0.conv2.weight": weights["layer3.0.conv2.weight"].to(torch.int8)}


def diverged(weights):
    return {**weights, "layer3.0.conv2.weight": weights["layer3.0.conv2.weight"] * torch.nan}


def prefixed(weights):
    return {f"encoder.{key}": value for key, value in weights.items()}


@pytest.mark.parametrize("kwargs", FOUR_CASES, ids=str)
@pytest.mark.parametrize("spoil", [renamed, incomplete, excessive, misshapen, quantised, diverged, prefixed])
def test_weights_that_do_not_fill_the_backbone_are_refused(spoil, kwargs, tmp_path):
    weights = spoil(timm.create_model("resnet8").state_dict())
    with pytest.raises(RuntimeError, match="not the weights of this SmallResNet"):
        load(weights, tmp_path, **kwargs)


def test_a_head_in_the_file_is_kept_or_left_as_the_model_asks(tmp_path):
    weights = timm.create_model("resnet8", num_classes=4).state_dict()
    assert "fc.weight" not in load(weights, tmp_path).state_dict()
    with_head = timm.create_model(
        "resnet8", pretrained=True, pretrained_cfg_overlay={"state_dict": weights, "num_classes": 4}
    )
    assert torch.equal(with_head.fc.weight, weights["fc.weight"])
    headless = {key: value for key, value in weights.items() if not key.startswith("fc")}
    with pytest.raises(RuntimeError, match=r"fc\.weight"):
        timm.create_model("resnet8", pretrained=True, pretrained_cfg_overlay={"state_dict": headless, "num_classes": 4})


def test_the_prefix_of_a_wrapper_is_taken_off():
    model = timm.create_model("resnet8")
    weights = model.state_dict()
    assert set(whole_backbone({f"module.{key}": value for key, value in weights.items()}, model)) == set(weights)


def test_a_missing_and_a_damaged_file_are_named(tmp_path):
    gone, broken = str(tmp_path / "gone.safetensors"), tmp_path / "broken.safetensors"
    with pytest.raises(PretrainedWeightsError, match="gone"):
        timm.create_model("resnet8_byol", pretrained=True, pretrained_cfg_overlay={"file": gone})
    save_file(timm.create_model("resnet8").state_dict(), broken)
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(PretrainedWeightsError, match="damaged"):
        timm.create_model("resnet8_byol", pretrained=True, pretrained_cfg_overlay={"file": str(broken)})


def test_command_line_lists(capsys):
    assert __main__.main(["list", "resnet50_lewel_b*"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["name", "method"]
    assert len(rows) == len(tags_of("resnet50_lewel_b"))
    assert all(row.split()[0] in {tag.name for tag in TAGS} for row in rows)


def test_the_whole_list_tells_names_without_weights_in_short(capsys):
    assert __main__.main(["list"]) == 0
    told = capsys.readouterr()
    _, *rows = told.out.splitlines()
    assert {row.split()[0] for row in rows} == {tag.name for tag in TAGS}
    rest = [name for name in ssl_backbones.list_models(include_tags=True) if name not in {tag.name for tag in TAGS}]
    assert f"{len(rest)} more names" in told.err
    for network in BACKBONES:
        assert re.search(rf"[ ,]{network}[, ]", told.err)
    for method in METHODS:
        assert re.search(rf"[ ,]{method}[,;]", told.err)
    assert "resnet50_2_byol" not in told.err


def test_command_line_says_when_nothing_is_found(capsys):
    assert __main__.main(["list", "nothing*", "--pretrained"]) == 1
    assert "no model with published weights matches 'nothing*'" in capsys.readouterr().err
    assert __main__.main(["describe", "resnet50_lewell_b"]) == 1
    assert "resnet50_lewel_b" in capsys.readouterr().err


def test_command_line_describes(capsys):
    assert __main__.main(["describe", "resnet50_lewel_m.in1k_200ep"]) == 0
    assert capsys.readouterr().out == f"{ssl_backbones.describe('resnet50_lewel_m.in1k_200ep')}\n"


def test_a_tag_knows_its_parts():
    tag = Tag("resnet50_moco_v2.in1k_800ep", TAGS[0].data, 800)
    assert (tag.architecture, tag.backbone, tag.method, tag.source) == (
        "resnet50_moco_v2",
        "resnet50",
        "moco_v2",
        None,
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_file_says_all_of_it(name):
    kind = METHODS[name]
    assert kind.name == name
    assert kind.__module__ == f"ssl_backbones.methods.{name}"
    assert PAPERS[name] is kind.paper
    assert kind.paper.label
    assert {kind.__name__, kind.__name__.removesuffix("Config")} <= set(methods.__all__)


def test_every_file_of_methods_is_a_method_or_the_protocol():
    files = {path.stem for path in Path(methods.__file__).parent.glob("*.py")}
    assert files - {"__init__", "method", "from_authors", "from_run"} == set(METHODS)


def test_all_that_methods_offers_is_there_and_is_a_class_or_a_function():
    assert len(set(methods.__all__)) == len(methods.__all__)
    for name in methods.__all__:
        assert name == "METHODS" or getattr(methods, name).__name__ == name


def test_names_of_ours_are_those_of_the_list() -> None:
    listed = set(ssl_backbones.list_models())
    asked = [
        *timm.list_models(),
        *timm.list_models("resnet8*", include_tags=True),
        *(tag.name for tag in TAGS),
        "",
        "x",
    ]
    assert {name for name in asked if _is_ours(name)} == listed


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("resnet50_dino.in1k_800ep", "a recipe like it"),
        ("resnet50_lewel_b.in1k_400ep", "to train it"),
        ("resnet18_byol", "to train it"),
    ],
)
def test_a_description_says_of_which_weights_its_command_is(name: str, label: str) -> None:
    described = ssl_backbones.describe(name)
    assert re.search(rf"^  {label} +{re.escape(str(described.training))}$", str(described), re.MULTILINE)
