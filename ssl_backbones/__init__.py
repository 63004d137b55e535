"""Self-supervised ResNet backbones for timm, and the means to make them."""

__version__ = "0.1.0.dev0"
