"""Measure the cost of LEWEL's aligned branch, knob by knob: python benchmarks/aligned_cost.py

One knob moves at a time from a middle setting: maps, groups, hidden width, grid, keys in the queue. Heads and losses
alone, on feature maps of noise (channels_last): a forward and a backward pass of LEWEL_M's query side (head, InfoNCE
against the queue, aligned InfoNCE) and of LEWEL_B's (head, predictors, cosines to given targets), each beside its base
with a head of the same form and widths on pooled features. Activations are the bytes of the distinct tensors that
autograd keeps for the backward pass, weights and their copies in half precision not among them. FLOPs are those of
2P(Cm+mc) + 2n(Cm+md) + 2PCn + 4ndm a view, three times that with the backward pass, for P positions, C channels,
hidden width m, c = projection_dim, d = aligned_dim, h groups and n = c/h aligned vectors; the last term is LEWEL_B's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from timing import circumstances, clock_of, command, in_turn, on_threads, quartiles, write
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.losses import aligned_info_nce, cosine_distance, info_nce
from ssl_backbones.models.aligned_head import AlignedHead, AlignedHeadConfig
from ssl_backbones.models.heads import MLPHead

PACKAGES = ("torch", "numpy")
TEMPERATURE = 0.2


@dataclass(frozen=True)
class Setting:
    """A head on a feature map, and the keys that it is compared with."""

    channels: int = 512
    side: int = 7
    """Side of the grid, in positions."""
    hidden: int = 1024
    width: int = 128
    """c and d, the widths of the embeddings; c maps."""
    groups: int = 4
    queue: int = 16384
    batch: int = 32

    @property
    def flops(self) -> int:
        """Multiplications of the branch alone, for one view."""
        positions, count = self.side**2, self.width // self.groups
        layer = self.channels * self.hidden + self.hidden * self.width
        rows = 2 * (positions + count) * layer
        return rows + 2 * positions * self.channels * count + 4 * count * self.width * self.hidden


MIDDLE = Setting()
KNOBS: dict[str, tuple[int, ...]] = {
    "groups": (1, 2, 4, 8, 16),
    "width": (64, 128, 256),
    "hidden": (256, 512, 1024, 2048, 4096),
    "side": (1, 2, 4, 7, 14, 24),
    "queue": (1024, 4096, 16384, 65536),
}
QUICK = Setting(channels=32, side=2, hidden=16, width=16, groups=4, queue=32, batch=4)


def pooled(features: Tensor) -> Tensor:
    """The mean over positions, (B, C, h, w) to (B, C)."""
    return features.mean((2, 3))


def ways_of(setting: Setting, dtype: torch.dtype, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """The loss of each method's query side and of its base's, anew each time."""
    torch.manual_seed(0)
    shape = (setting.batch, setting.channels, setting.side, setting.side)
    features = (
        torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    )
    sizes, width = AlignedHeadConfig(setting.hidden, setting.width, setting.width, setting.groups), setting.width
    head = AlignedHead(setting.channels, sizes).to(device)
    base = MLPHead(setting.channels, setting.hidden, width).to(device)
    predictor, aligned_predictor = (MLPHead(width, setting.hidden, width).to(device) for _ in range(2))
    queue = normalize(torch.randn(setting.queue, width, device=device), dim=1)
    key = torch.randn(setting.batch, width, device=device)
    aligned_keys = torch.randn(setting.batch, sizes.num_maps, width, device=device)

    def moco_v2() -> Tensor:
        return info_nce(base(pooled(features)), key, queue, TEMPERATURE)

    def lewel_m() -> Tensor:
        made = head(features)
        aligned_loss = aligned_info_nce(made.aligned, aligned_keys, TEMPERATURE, 0, "other_images_all_maps")
        return info_nce(made.projection, key, queue, TEMPERATURE) + aligned_loss

    def byol() -> Tensor:
        return cosine_distance(predictor(base(pooled(features))), key)

    def lewel_b() -> Tensor:
        made = head(features)
        aligned_loss = cosine_distance(aligned_predictor(made.aligned), aligned_keys)
        return cosine_distance(predictor(made.projection), key) + aligned_loss

    return {"moco_v2": moco_v2, "lewel_m": lewel_m, "byol": byol, "lewel_b": lewel_b}


def kept(way: Callable[[], Tensor], constant: set[int]) -> int:
    """Bytes of what autograd keeps for the backward pass, each storage once, without those that are there anyway."""
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constant:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = way()
    assert loss.requires_grad  # the graph, and with it every storage, is alive until here
    return sum(found.values())


def descent(way: Callable[[], Tensor]) -> Callable[[], None]:
    """A forward and a backward pass."""
    return lambda: way().backward()


def casts(way: Callable[[], Tensor]) -> int:
    """Bytes of the copies in half precision that autocast makes of the matrices of weights that a way closes over."""
    cells = [cell.cell_contents for cell in way.__closure__ or ()]
    networks = [value for value in cells if isinstance(value, nn.Module)]
    return sum(2 * weights.numel() for one in networks for weights in one.parameters() if weights.ndim == 2)


def places(way: Callable[[], Tensor]) -> Iterator[int]:
    """The addresses of the weights and constant tensors that a way closes over."""
    cells = [cell.cell_contents for cell in way.__closure__ or ()]
    for value in cells:
        tensors = value.parameters() if isinstance(value, nn.Module) else [value] if isinstance(value, Tensor) else []
        yield from (tensor.untyped_storage().data_ptr() for tensor in tensors)


def measure(setting: Setting, precision: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Time and activations of the branch in one setting."""
    half = precision == "bf16"
    losses = ways_of(setting, torch.bfloat16 if half else torch.float32, device)

    def scored(way: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def loss() -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                return way()

        return loss

    clock = clock_of(device)[1]
    seconds = in_turn({name: descent(scored(way)) for name, way in losses.items()}, rounds, clock)
    activations = {name: kept(scored(way), set(places(way))) - half * casts(way) for name, way in losses.items()}
    row: dict[str, Any] = {**asdict(setting), "maps": setting.width, "vectors": setting.width // setting.groups}
    row["gflops_a_view_with_backward"] = round(3 * setting.flops / 1e9, 4)
    for name, base in (("lewel_m", "moco_v2"), ("lewel_b", "byol")):
        extra = seconds[name] - seconds[base]
        row[name] = {
            "us_per_image": quartiles(seconds[name] / setting.batch * 1e6, 1),
            "extra_us_per_image": quartiles(extra / setting.batch * 1e6, 1),
            "base_us_per_image": quartiles(seconds[base] / setting.batch * 1e6, 1),
            "kb_per_image": round(activations[name] / setting.batch / 1e3, 1),
            "extra_kb_per_image": round((activations[name] - activations[base]) / setting.batch / 1e3, 1),
        }
    return row


def settings(middle: Setting, quick: bool) -> Iterator[tuple[str, Setting]]:
    """The middle, and each value of each knob; for a test, one of each."""
    for knob, values in KNOBS.items():
        for value in [getattr(middle, knob) * 2] if quick else values:
            yield knob, replace(middle, **{knob: value})


def say(knob: str, row: dict[str, Any]) -> None:
    """Print a row of the table."""
    cells = []
    for name in ("lewel_m", "lewel_b"):
        time, memory = row[name]["extra_us_per_image"], row[name]["extra_kb_per_image"]
        cells.append(f"{name} +{time['median']:8.1f} us [{time['q1']:.1f}, {time['q3']:.1f}] +{memory:8.1f} kB")
    print(f"  {knob:7} {row[knob]:6}  {row['gflops_a_view_with_backward']:8.3f} GFLOP  {'   '.join(cells)}", flush=True)


def main() -> None:
    """Measure, print and write."""
    parser = command(__file__, __doc__, rounds=9)
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="tiny heads, for a test")
    options = parser.parse_args()
    on_threads(options.threads)
    device, middle = torch.device(options.device), QUICK if options.quick else MIDDLE
    results: dict[str, Any] = circumstances(PACKAGES, device) | {
        "clock": clock_of(device)[0],
        "precision": options.precision,
        "rounds": options.rounds,
        "middle": asdict(middle),
    }
    print(results)
    print("What the branch adds to its base, for each view of an image that gradients flow through:")
    results["measured"] = []
    for knob, setting in settings(middle, options.quick):
        row = measure(setting, options.precision, options.rounds, device)
        results["measured"].append({"knob": knob, **row})
        say(knob, row)
    write(results, options.out)


if __name__ == "__main__":
    main()
