"""The classifier that a run leaves: backbone and head as one network, which names the classes of anybody's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_backbones.data.keys import as_unicode
from ssl_backbones.evaluate.classification.classifier import Classifier
from ssl_backbones.evaluate.transfer import Learnt, Transfer
from ssl_backbones.evaluate.tuned_backbone import about
from ssl_backbones.hub.export import save_classifier
from ssl_backbones.registry.names import Name
from ssl_backbones.runs.run_folder import RunFolder


def save_trained_classifier(method: Classifier, names: Sequence[str], learnt: Learnt, run: Transfer) -> dict[str, Any]:
    """Write the classifier as it is after the last step into the run's folder; the account of it for results.json.

    It is described by the start's description, with the preparation of the images that it was tested on. One that no
    network of timm's holds is not written, and the account says why.
    """
    cfg: Any = method.backbone.pretrained_cfg
    crop, layer, folder = method.to_test(run.size), method.layer, learnt.folder.classifier
    if layer is None:
        reason = "its head has a hidden layer, and timm's networks end in one linear layer: --task.hidden 0 leaves one"
        return {"folder": None, "reason": reason}
    try:
        save_classifier(
            method.backbone,
            layer,
            as_unicode(names),
            folder,
            Name.parse(cfg["architecture"]).arch,
            input_size=(cfg["input_size"][0], crop.size, crop.size),
            **crop.preparation,
            **about(cfg, run.start.name if run.start else "", learnt.in_words(run)),
        )
    except ValueError as error:
        return {"folder": None, "reason": str(error)}
    return {"folder": folder.name, "classes": layer.out_features, "as_after": "the last step"}


def in_words(account: dict[str, Any], folder: RunFolder) -> str:
    """The account of a classifier in a sentence."""
    if account["folder"] is None:
        return f"It leaves no classifier: {account['reason']}"
    return f"To classify other images: ssl-backbones predict {folder.classifier} --data IMAGES --out predictions.csv"
