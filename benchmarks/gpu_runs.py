"""The parts of `gpu.py` that are whole runs, each a command: resumed, under NCCL, and from files to steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from gpu_steps import Machine, difference
from limited import Row
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.manifest import folder_name
from ssl_backbones.runs.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
SAID = 600
"""Characters that are kept of a run's last words, where it failed."""
ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
"""The environment that a launcher gives to the only process of a run."""
PORT = "29533"


class RunError(RuntimeError):
    """A run that ended otherwise than it should."""


def write_images(folder: Path, count: int, width: int, height: int) -> Path:
    """JPEG files that take about as long to decode as photographs of that size."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(number: int) -> None:
        stream = np.random.default_rng(number)
        rough = Image.fromarray(stream.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + stream.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(count)))
    return folder


def run(out: Path, recipe: str, fields: Mapping[str, Any], left: float, environment: Mapping[str, str]) -> Row:
    """A run by its command, within the seconds that are left; its seconds and speeds. RunError for one that fails."""
    words = [word for name, value in fields.items() for word in (f"--{name}", *([] if value is True else [str(value)]))]
    command = [sys.executable, "-m", "ssl_backbones", "pretrain", recipe, *words, "--out", str(out)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    began = time.monotonic()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=max(20.0, left),
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    if done.returncode:
        raise RunError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-SAID:]}")
    lines = read_log(out / "speed.jsonl")
    speeds = [round(line["images_per_second"], 1) for line in lines if "images_per_second" in line]
    waits = [round(line["waiting"], 3) for line in lines if "waiting" in line]
    return {"seconds": round(time.monotonic() - began, 1), "images_per_second": speeds, "waiting": waits}


class Runs:
    """Whole runs in a folder that is thrown away."""

    def __init__(self, machine: Machine, folder: Path, left: Callable[[], float]) -> None:
        self.machine, self.folder, self.left = machine, folder, left
        self.steps = 4 if machine.small else 12
        self.data = ""

    def short(self, out: Path, **environment: str) -> Row:
        """A short run of LEWEL_B, with a checkpoint in its middle."""
        if not self.data:
            self.data = str(write_images(self.folder / "small", 64 if self.machine.small else 512, 120, 90))
        recipe = "resnet8_lewel_b.imagenette32_15ep" if self.machine.small else "resnet18_lewel_b.imagenette96_100ep"
        fields = {
            "data": self.data,
            "batch_size": 16 if self.machine.small else 64,
            "max_steps": self.steps,
            "log_every": 2,
            "checkpoints.every_steps": self.steps // 2,
            "monitoring.knn_every": 0,
            "precision": self.machine.precision,
            "layout": "channels_last",
        }
        return run(out, recipe, fields, self.left(), environment)

    def state(self, out: Path) -> dict[str, Tensor]:
        """All tensors of a run's last checkpoint."""
        folder = RunFolder(out).checkpoints / folder_name(self.steps)
        files = sorted(folder.glob("*.safetensors"))
        return {f"{path.stem}/{key}": value for path in files for key, value in load_file(path).items()}

    def resumed(self) -> Iterator[Row]:
        """A run twice, and once more from its middle: the tensors of the last checkpoints that differ."""
        a, b, middle = (self.folder / name for name in ("a", "b", "middle"))
        yield {"what": "straight on", **self.short(a)}
        yield {"what": "straight on again", **self.short(b)}
        shutil.copytree(a, middle)
        shutil.rmtree(RunFolder(middle).checkpoints / folder_name(self.steps))
        RunFolder(middle).results.unlink()
        yield {"what": "from the middle", **self.short(middle)}
        yield {"straight on, twice": difference(self.state(a), self.state(b))}
        yield {"from the middle": difference(self.state(a), self.state(middle))}

    def nccl(self) -> Iterator[Row]:
        """The same run as the only process of a launcher, wrapped for many: by NCCL on a GPU, by gloo without one."""
        a, alone = self.folder / "a", self.folder / "alone"
        if not a.exists():
            self.short(a)
        on_cpu = {} if self.machine.device.type == "cuda" else {"ACCELERATE_USE_CPU": "true"}
        yield {"what": "one process of a launcher", **self.short(alone, **ALONE, MASTER_PORT=PORT, **on_cpu)}
        yield {"against a plain run": difference(self.state(a), self.state(alone))}

    def end_to_end(self) -> Iterator[Row]:
        """LEWEL_B from JPEG files of 500 x 375 to steps, by each engine and from a cache that lies on the device."""
        small = self.machine.small
        data = write_images(self.folder / "images", 64 if small else 2048, 500, 375)
        cache = {"engine": "device", "cache": self.folder / "cache", "resident": True}
        ways: dict[str, dict[str, Any]] = {
            "pillow": {"engine": "pillow"},
            "opencv": {"engine": "opencv"},
            "device": {"engine": "device"},
            "device, resident": cache,
        }
        recipe = "resnet8_lewel_b.imagenette32_15ep" if small else "resnet50_lewel_b.in1k_200ep"
        fields = {
            "data": data,
            "size": 32 if small else 224,
            "batch_size": 16 if small else 256,
            "max_steps": 4 if small else 20,
            "log_every": 1 if small else 4,
            "checkpoints.every_minutes": 0,
            "monitoring.knn_every": 0,
            "monitoring.bank": 64,
            "precision": self.machine.precision,
            "layout": "channels_last",
        }
        for number, (what, way) in enumerate(ways.items()):
            found = run(self.folder / f"engine-{number}", recipe, {**fields, **way}, self.left(), {})
            yield {"what": what, "batch": fields["batch_size"], **found}
