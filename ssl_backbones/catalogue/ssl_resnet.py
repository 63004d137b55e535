"""timm entry points: every backbone with every method of the registry, `resnet50_lewel_b` and so on."""

from collections.abc import Callable, Iterator
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from ssl_backbones.catalogue.lookup import tags_of
from ssl_backbones.methods import METHODS
from ssl_backbones.models.build import build, headless_cfg
from ssl_backbones.models.small_resnet import DEPTHS, build_small, small_cfg
from ssl_backbones.registry.papers import ELSEWHERE, PAPERS
from ssl_backbones.registry.tags import TAGS, Tag

BLOCKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
BACKBONES = (*DEPTHS, *BLOCKS)


def large_cfg(**fields: Any) -> dict[str, Any]:
    """timm's description of a headless network for 224 x 224 images, with `fields` added or replaced."""
    return headless_cfg(side=224, pooled=7, **{"crop_pct": 0.875, **fields})


def tag_fields(tag: Tag) -> dict[str, Any]:
    """The configuration of a pretrained backbone for timm: its paper and licence, and the place of its weights."""
    fields: dict[str, Any] = {
        "license": tag.licence,
        "description": f"{tag.backbone}, {PAPERS[tag.method].label}, {tag.data.name}, {tag.epochs} epochs",
        "paper_name": PAPERS[tag.method].title,
        "paper_ids": PAPERS[tag.method].url,
    }
    if tag.size:
        pooled = -(-tag.size // (4 if tag.backbone in DEPTHS else 32))
        fields |= {"input_size": (3, tag.size, tag.size), "pool_size": (pooled, pooled)}
    if tag.file:
        fields["file"] = str(tag.file)
    if tag.hf_hub_id:
        fields |= {"hf_hub_id": tag.hf_hub_id, "hf_hub_filename": "model.safetensors"}
    if tag.origin:
        told = f"{fields['description']}, weights of {tag.origin.publisher}. {tag.origin.notes}"
        fields |= {"origin_url": tag.origin.url or tag.origin.page, "description": told.strip()}
    return fields | ({"url": tag.url} if tag.url else {})


def methods_of(backbone: str) -> Iterator[str]:
    """The methods a backbone can be trained with, then those by which others publish it."""
    yield from METHODS
    published = {tag.method for tag in TAGS if tag.backbone == backbone}
    yield from (method for method in ELSEWHERE if method in published)


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every `backbone_method.tag`, and every bare `backbone_method` that has none, with its description."""
    for backbone in BACKBONES:
        cfg = small_cfg if backbone in DEPTHS else large_cfg
        for method in methods_of(backbone):
            name = f"{backbone}_{method}"
            tags = tags_of(name)
            yield from ((tag.name, cfg(**tag_fields(tag))) for tag in tags)
            if not tags:
                yield name, cfg()


def entry_point(backbone: str, method: str) -> Callable[..., nn.Module]:
    """The function that timm calls to build `backbone_method`."""
    name = f"{backbone}_{method}"

    def build_backbone(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if backbone in DEPTHS:
            return build_small(name, backbone, pretrained, **kwargs)
        block, layers = BLOCKS[backbone]
        return build(ResNet, name, pretrained, **{"block": block, "layers": layers, "zero_init_last": False, **kwargs})

    build_backbone.__name__ = build_backbone.__qualname__ = name
    build_backbone.__doc__ = f"{backbone} for, or pretrained with, {PAPERS[method].label}."
    return build_backbone


default_cfgs = generate_default_cfgs(dict(entries()))

for _backbone in BACKBONES:
    for _method in methods_of(_backbone):
        globals()[f"{_backbone}_{_method}"] = register_model(entry_point(_backbone, _method))
