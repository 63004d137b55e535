"""The batched engine: whole batches on the network's device, every image with parameters of its own.

It repeats Pillow's arithmetic in floats that hold whole grey levels. From the same pixels each operation gives what the
Pillow engine gives:
- flip, turn, brightness, contrast, saturation, grey, solarize: the same levels;
- bilinear crop and blur: within 2 levels, 0.1 and 0.5 on average. Pillow 13 chooses which way to resize first, earlier
  ones go across first, as here; and Pillow rounds a blur six times, here it is twice;
- bicubic crop: the same, but where an image is noise, overshoots that are clipped between the two ways differ by more;
- hue: the same but for one value in 200, where eight-bit HSV is on an edge, and there within 6 levels.
Nothing here waits for the device: what to do to which row is settled on the host, by `pack`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_backbones.products import exact_products
from ssl_backbones.views.pillow_engine import pixels
from ssl_backbones.views.policy import BRIGHTNESS, CONTRAST, HUE, SATURATION, Parameters, Policy
from ssl_backbones.views.resident import resident_rows


def pack(images: Sequence[Image.Image], views: Sequence[tuple[Policy, Parameters]]) -> dict[str, Any]:
    """The images, or the rows of those that lie on the device already, and for each view its parameters as tensors."""
    sizes = np.array([image.size for image in images], dtype=np.int64).reshape(-1, 2)
    width, height = sizes.max(axis=0, initial=0).tolist()
    plans = [_plan(policy, drawn, sizes) for policy, drawn in views]
    if (found := resident_rows(images)) is not None:
        pixels_there, rows = found
        return {"rows": rows, "pixels": pixels_there, "canvas": (height, width), "views": plans}
    canvases = np.zeros((len(images), height, width, 3), dtype=np.uint8)
    for canvas, image in zip(canvases, images, strict=True):
        canvas[: image.height, : image.width] = pixels(image)
    return {"images": torch.from_numpy(canvases), "views": plans}


def render(batch: dict[str, Any], policies: Sequence[Policy], size: int) -> list[Tensor]:
    """A view per policy, in whole grey levels: (B, 3, S, S) float32, S being the policy's side in a run of `size`."""
    levels = batch["images"] if "images" in batch else batch["pixels"].canvases(batch["rows"], *batch["canvas"])
    with torch.no_grad(), torch.autocast(levels.device.type, enabled=False), exact_products():
        images = levels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        plans = zip(batch["views"], policies, strict=True)
        return [_view(images, plan, policy, policy.side(size)) for plan, policy in plans]


def _plan(policy: Policy, drawn: Parameters, sizes: NDArray[np.int64]) -> dict[str, Any]:
    """A view's parameters as the device wants them: numbers for all rows, and lists of the rows concerned."""
    factor = np.take_along_axis(drawn.factors, np.maximum(drawn.order, 0), axis=1)
    mixes = np.isin(drawn.order, (BRIGHTNESS, CONTRAST, SATURATION))
    turned = [np.flatnonzero(slot == HUE) for slot in drawn.order.T]
    steps = [(factor[rows, slot] * 255).astype(np.int64) for slot, rows in enumerate(turned)]
    blurred = np.flatnonzero(drawn.sigma)
    return {
        "box": torch.from_numpy(policy.crop_boxes(drawn, sizes)),
        "flip": torch.from_numpy(drawn.flip),
        "factor": torch.from_numpy(np.where(mixes, factor, 1.0).astype(np.float32)),
        "to_mean": torch.from_numpy((drawn.order == CONTRAST).astype(np.float32)),
        "to_grey": torch.from_numpy((drawn.order == SATURATION).astype(np.float32)),
        "turned": [torch.from_numpy(rows) for rows in turned],
        "steps": [torch.from_numpy(values.astype(np.float32)) for values in steps],
        "grey": torch.from_numpy(np.flatnonzero(drawn.grey)),
        "blurred": torch.from_numpy(blurred),
        "radius": torch.tensor([*map(box_radius, drawn.sigma[blurred].tolist())], dtype=torch.float32),
        "solarized": torch.from_numpy(np.flatnonzero(drawn.solarize)),
        "quarters": [torch.from_numpy(np.flatnonzero(drawn.quarters == quarters)) for quarters in (1, 2, 3)],
    }


def _view(images: Tensor, plan: dict[str, Any], policy: Policy, size: int) -> Tensor:
    """The view (B, 3, S, S) of images (B, 3, H, W); a flip is done with the crop, for all that follows is symmetric."""
    x = crop(images, plan["box"], plan["flip"], size, FILTERS[policy.interpolation])
    for slot, (rows, steps) in enumerate(zip(plan["turned"], plan["steps"], strict=True)):
        x = mix(x, plan["factor"][:, slot], plan["to_mean"][:, slot], plan["to_grey"][:, slot])
        if len(rows):
            x[rows] = hue(x[rows], steps)
    if len(rows := plan["grey"]):
        x[rows] = grey(x[rows])
    if len(rows := plan["blurred"]):
        x[rows] = blur(x[rows], plan["radius"], reach=int(box_radius(policy.sigma[1])) + 1)
    if len(rows := plan["solarized"]):
        x[rows] = solarize(x[rows], policy.threshold)
    for quarters, rows in enumerate(plan["quarters"], start=1):
        if len(rows):
            x[rows] = x[rows].rot90(quarters, (2, 3))
    return x


def crop(images: Tensor, box: Tensor, flip: Tensor, size: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Each image's box (B, 4) at size x size, mirrored where flip (B,): (B, 3, S, S) from (B, 3, H, W)."""
    b, _, h, w = images.shape
    left, top, width, height = box.to(torch.float32).T
    across = _resampling(left, width, w, size, kernel)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    down = _resampling(top, height, h, size, kernel)
    rows = _whole(torch.bmm(images.reshape(b, 3 * h, w), across.mT)).view(b, 3, h, size)
    return _whole(down[:, None] @ rows)


def _resampling(start: Tensor, extent: Tensor, length: int, size: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Rows (B, S, L) of Pillow's antialiased resize of the extent (B,) that starts at (B,), with weight 1 each."""
    scale = (extent / size)[:, None, None]
    pixel = torch.arange(length, device=start.device) - start[:, None, None]
    centre = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    weight = kernel((pixel + 0.5 - centre) / scale.clamp(min=1))
    weight = weight * ((pixel >= 0) & (pixel < extent[:, None, None]))
    return weight / weight.sum(dim=2, keepdim=True)


def triangle(x: Tensor) -> Tensor:
    """Bilinear interpolation's kernel."""
    return (1 - x.abs()).clamp(min=0)


def cubic(x: Tensor) -> Tensor:
    """Bicubic interpolation's kernel with a = -1/2 (Keys, 1981)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def mix(x: Tensor, factor: Tensor, to_mean: Tensor, to_grey: Tensor) -> Tensor:
    """d + factor (x - d): brightness where d is black, contrast where it is the grey's mean, saturation where the grey.

    x is (B, 3, S, S) and the rest (B,), to_mean and to_grey 0 or 1; a factor of 1 changes nothing.
    """
    factor, to_mean, to_grey = (value.view(-1, 1, 1, 1) for value in (factor, to_mean, to_grey))
    levels = grey(x)
    mean = torch.floor(levels.mean(dim=(2, 3), keepdim=True) + 0.5)
    degenerate = to_mean * mean + to_grey * levels
    return (degenerate + factor * (x - degenerate)).clamp_(0, 255).floor_()


def grey(x: Tensor) -> Tensor:
    """Luma (B, 1, S, S) of ITU-R 601, in Pillow's fixed point; every product is below 2^24, so float32 is exact."""
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return torch.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)


def hue(x: Tensor, steps: Tensor) -> Tensor:
    """Colours (B, 3, S, S) turned by whole steps (B,) of the 256 that Pillow's eight-bit HSV has."""
    red, green, blue = x.unbind(dim=1)
    value, least = x.amax(dim=1), x.amin(dim=1)
    chroma = value - least
    safe = chroma.clamp(min=1)
    angle = torch.where(
        red == value,
        (green - blue) / safe,
        torch.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = (torch.floor(torch.where(angle < 0, angle + 6, angle) * 42.5) + steps.view(-1, 1, 1)) % 256
    saturation = torch.floor(chroma * 255 / value.clamp(min=1)) / 255
    offsets = 5 - 2 * torch.arange(3, device=x.device).view(1, 3, 1, 1)  # red's, green's and blue's sixth
    sector = (offsets + (turned * 6 / 255)[:, None]) % 6
    share = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return torch.floor(value[:, None] * (1 - saturation[:, None] * share) + 0.5)


def solarize(x: Tensor, threshold: int) -> Tensor:
    """The levels from the threshold on inverted."""
    return torch.where(x < threshold, x, 255 - x)


def box_radius(sigma: float) -> float:
    """Radius of the extended box whose threefold use has the deviation sigma (Gwosdek et al., 2011, eq. 14)."""
    variance = sigma * sigma / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return whole + rest


def blur(x: Tensor, radius: Tensor, reach: int) -> Tensor:
    """Pillow's Gaussian of x (B, 3, S, S): boxes of radius (B,), below `reach`, three times each way."""
    down, across = (box_weights(side, radius, reach) for side in x.shape[2:])
    down, across = (torch.linalg.matrix_power(box, 3)[:, None] for box in (down, across))
    return _whole(down @ _whole(x @ across.mT))


def box_weights(length: int, radius: Tensor, reach: int) -> Tensor:
    """The blur (B, L, L) by a box whose ends count in part, of a line whose ends repeat."""
    radius = radius[:, None, None]
    pixel = torch.arange(-reach, length + reach, device=radius.device)
    distance = (torch.arange(length, device=radius.device)[:, None] - pixel).abs()
    wide = (radius + 1 - distance).clamp(0, 1) / (2 * radius + 1)
    box = wide[:, :, reach:-reach].clone()
    box[:, :, 0] += wide[:, :, :reach].sum(dim=2)
    box[:, :, -1] += wide[:, :, -reach:].sum(dim=2)
    return box


def _whole(x: Tensor) -> Tensor:
    """The nearest grey levels."""
    return x.add_(0.5).floor_().clamp_(0, 255)


FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": triangle, "bicubic": cubic}
