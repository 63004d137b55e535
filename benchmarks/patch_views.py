"""Measure Patch RotNet's eight views against a ResNet-8 step on them: `python benchmarks/patch_views.py`.

Both are timed in turn, so that a slow spell of the machine meets them alike. Host work (decoding, crop, flip) is not in
it: workers do that meanwhile. The figures go to benchmarks/results/patch_views.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import circumstances, clock_of, command, in_turn, quartiles, write

import ssl_backbones
from ssl_backbones.methods.patch_rotnet import PatchRotNetConfig

PACKAGES = ("torch", "timm", "numpy")
TARGET = 0.10


def measure(size: int, batch_size: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Medians and quartiles in ms of making the views, and of a step on them, at one size."""
    torch.manual_seed(0)
    config = PatchRotNetConfig()
    method = config.build(ssl_backbones.create_model("resnet8", num_classes=0)).to(device).train()
    method = method.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    transform = method.transform(size)
    noise = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    indices = np.arange(batch_size)
    host = transform.on_host([Image.fromarray(image) for image in noise], transform.draw(0, 0, indices))
    host = {name: tensor.to(device) for name, tensor in host.items()}
    views = transform.on_device(host)

    def step() -> None:
        optimizer.zero_grad()
        method(views)["loss"].backward()
        optimizer.step()

    _, clock = clock_of(device)
    seconds = in_turn({"views": lambda: transform.on_device(host), "step": step}, rounds, clock)
    found = {name: quartiles(values * 1e3, 3) for name, values in seconds.items()}
    share = found["views"]["median"] / found["step"]["median"]
    return {"size": size, "batch": batch_size, "rounds": rounds, "ms": found, "share_of_a_step": round(share, 4)}


def main() -> None:
    """Measure, print and write."""
    parser = command(__file__, __doc__, rounds=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    results = circumstances(PACKAGES, device) | {
        "time": clock_of(device)[0],
        "precision": "fp32, channels last",
        "target": TARGET,
        "measured": [measure(size, options.batch, options.rounds, device) for size in options.sizes],
    }
    for row in results["measured"]:
        views, step = (row["ms"][name] for name in ("views", "step"))
        print(
            f"{row['size']} px, batch {row['batch']}: views {views['median']:.1f} ms [{views['q1']:.1f}, "
            f"{views['q3']:.1f}], step {step['median']:.1f} ms [{step['q1']:.1f}, {step['q3']:.1f}]: "
            f"{row['share_of_a_step']:.1%} of a step (target: at most {TARGET:.0%})"
        )
    write(results, options.out)


if __name__ == "__main__":
    main()
