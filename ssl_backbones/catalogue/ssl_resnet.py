"""timm entry points: every backbone with every method, `resnet50_lewel_b` and so on."""

from collections.abc import Callable, Iterator
from typing import Any

import timm
from timm.models import generate_default_cfgs, register_model
from torch import nn

from ssl_backbones.methods import METHODS
from ssl_backbones.models.build import build, headless_cfg
from ssl_backbones.models.small_resnet import build_plain
from ssl_backbones.registry.backbones import BACKBONES, SMALL
from ssl_backbones.registry.papers import ELSEWHERE, PAPERS
from ssl_backbones.registry.tags import TAGS, Tag, tags_of


def tag_fields(tag: Tag) -> dict[str, Any]:
    """The configuration of a pretrained backbone for timm: its paper and licence, and the place of its weights."""
    paper = PAPERS[tag.method]
    fields: dict[str, Any] = {
        "license": tag.licence,
        "description": f"{tag.backbone}, {paper.label}, {tag.data.name}, {tag.epochs} epochs",
        "paper_name": paper.title,
        "paper_ids": paper.url,
    }
    if tag.size:
        known = timm.get_pretrained_cfg(tag.backbone)
        pooled = -(-tag.size * known.pool_size[-1] // known.input_size[-1])
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
        for method in methods_of(backbone):
            name = f"{backbone}_{method}"
            tags = tags_of(name)
            yield from ((tag.name, headless_cfg(backbone, **tag_fields(tag))) for tag in tags)
            if not tags:
                yield name, headless_cfg(backbone)


def entry_point(backbone: str, method: str) -> Callable[..., nn.Module]:
    """The function that timm calls to build `backbone_method`."""
    name = f"{backbone}_{method}"

    def build_backbone(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        make = build_plain(backbone) if backbone in SMALL else timm.models.model_entrypoint(backbone)
        return build(make, name, pretrained, **{"zero_init_last": False, **kwargs})

    build_backbone.__name__ = build_backbone.__qualname__ = name
    build_backbone.__doc__ = f"{backbone} for, or pretrained with, {PAPERS[method].label}."
    return build_backbone


default_cfgs = generate_default_cfgs(dict(entries()))

for _backbone in BACKBONES:
    for _method in methods_of(_backbone):
        globals()[f"{_backbone}_{_method}"] = register_model(entry_point(_backbone, _method))
