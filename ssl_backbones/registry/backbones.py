"""The networks that are registered with timm under every method's name, a row each.

Any other network of timm's that has feature maps can be trained as well, by its name.
"""

LARGE = (
    "resnet50",
    "resnet18",
    "resnet34",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
)
"""Architectures of timm's module `resnet`; a checkpoint of unknown architecture is tried on them in this order."""

SMALL = {
    "resnet8": 1,
    "resnet20": 3,
    "resnet32": 5,
    "resnet56": 9,
}
"""This package's own for small images, with their blocks a stage: two convolutions each, a stem and a head."""

BACKBONES = (*LARGE, *SMALL)
