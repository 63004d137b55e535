"""Networks and the parts of methods that hold state; importing this package makes the networks known to timm."""

from ssl_backbones.models import small_resnet, ssl_resnet

__all__ = ["small_resnet", "ssl_resnet"]
