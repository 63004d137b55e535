"""The backbone that a transfer leaves: no longer as pretraining made it, and a model for every command."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ssl_backbones.catalogue.start import create_started
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.registry.names import Name, without_place
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.views.center_crop import PREPARATION


def is_tuned(backbone: nn.Module) -> bool:
    """True for a backbone that a transfer trains, and false for one that stays frozen."""
    return any(parameter.requires_grad for parameter in backbone.parameters())


def save_tuned(
    backbone: nn.Module, folder: RunFolder, *, model: str, init: str, random: bool, size: int, training: str
) -> dict[str, Any]:
    """Write the backbone as it is after the last step into the run's folder; the account of it for results.json.

    It is described by the start's description, at `size` pixels a side, and by `training`, a phrase. A network that
    timm could not make again by its name is not written, and the account says why.
    """
    cfg: Any = backbone.pretrained_cfg
    whole, start = create_started(model, init, random)
    rest = fill(whole, backbone)
    untouched = f"; as at the start are {', '.join(rest)}" if rest else ""
    told = about(cfg, "" if random else start.provenance.name if start else model, training)
    try:
        save_backbone(
            whole,
            folder.backbone,
            Name.parse(cfg["architecture"]).arch,
            input_size=(cfg["input_size"][0], size, size),
            **{name: cfg[name] for name in PREPARATION},
            **told | {"description": f"{told['description']}{untouched}"},
        )
    except ValueError as error:
        return {"folder": None, "reason": str(error)}
    return {"folder": folder.backbone.name, "weights_sha256": weights_sha256(whole), "as_after": "the last step"}


def about(cfg: Any, start: str, training: str) -> dict[str, Any]:
    """A description of what a transfer trained, with the licence and the origin of its start, empty for random weights.

    `cfg` is the start's own description, and `training` a phrase.
    """
    begun = started(start, cfg) if start else "random weights"
    return {
        "license": cfg.get("license") if start else None,
        "origin_url": cfg.get("origin_url") if start else None,
        "description": f"trained with labels: {training}, as after the last step; begun with {begun}",
    }


def started(model: str, cfg: Any) -> str:
    """The start in words: its name, and what its description says."""
    name = without_place(model)
    return f"{name} ({cfg['description']})" if cfg.get("description") else name


def fill(whole: nn.Module, tuned: nn.Module) -> list[str]:
    """Load all that a backbone, or its maps alone, has into the whole network; the names of tensors that it lacks.

    timm joins the names of layers by "_" where it gives maps alone, and puts some networks behind "model.".
    """
    flat = {key.replace(".", "_"): value for key, value in tuned.state_dict().items()}
    found: dict[str, Tensor] = {}
    for key in whole.state_dict():
        joined = key.replace(".", "_")
        value = flat.get(joined, flat.get(f"model_{joined}"))
        if value is not None:
            found[key] = value.detach().cpu()
    whole.load_state_dict(found, strict=False)
    return sorted(key for key in whole.state_dict() if key not in found)
