"""Networks and the parts of methods that hold state; importing this package makes the small networks known to timm."""

from ssl_backbones.models import small_resnet

__all__ = ["small_resnet"]
