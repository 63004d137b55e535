"""The parts of `gpu.py` that are whole commands: runs resumed, by many ways, under NCCL, and from files to steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu_steps import Machine, difference
from limited import Row, caught
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.manifest import folder_name
from ssl_backbones.runs.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
SAID = 3000
"""Characters that are kept of a command's last words, where it failed."""
TEACHER = "resnet8_byol.imagenette32_60ep"
"""A network that ships."""
ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
"""The environment that a launcher gives to the only process of a run."""
PORT = "29533"
REPEATABLE = {"deterministic": True}
"""Fields of runs that are held against one another, tensor by tensor."""


class RunError(RuntimeError):
    """A command that ended otherwise than it should."""


def write_images(folder: Path, count: int, width: int, height: int, first: int = 0) -> Path:
    """JPEG files that take about as long to decode as photographs of that size; each number is another image."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(number: int) -> None:
        stream = np.random.default_rng(number)
        rough = Image.fromarray(stream.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + stream.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(first, first + count)))
    return folder


def carried_out(words: Sequence[str], left: float, environment: Mapping[str, str]) -> float:
    """Carry out a command of the package within the seconds that are left; its seconds. RunError for one that fails."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ssl_backbones", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(20.0, left),
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"not over after {error.timeout:.0f} s: {last_words(error.stdout)}") from error
    if done.returncode:
        raise RunError(f"exit code {done.returncode}: {last_words(done.stdout)}")
    return round(time.monotonic() - began, 1)


def last_words(said: bytes | None) -> str:
    """The end of what a command said, of which there may be nothing."""
    return (said or b"").decode(errors="replace")[-SAID:]


def options_of(fields: Mapping[str, Any]) -> list[str]:
    """The words that give fields their values; of one that is true, its name alone."""
    return [word for name, value in fields.items() for word in (f"--{name}", *([] if value is True else [str(value)]))]


def run(out: Path, recipe: str, fields: Mapping[str, Any], left: float, environment: Mapping[str, str]) -> Row:
    """A run by its command, within the seconds that are left; its seconds and speeds. RunError for one that fails."""
    words = ["pretrain", recipe, *options_of({**fields, "out": out})]
    seconds = carried_out(words, left, environment)
    lines = read_log(out / "speed.jsonl")
    speeds = [round(line["images_per_second"], 1) for line in lines if "images_per_second" in line]
    waits = [round(line["waiting"], 3) for line in lines if "waiting" in line]
    return {"seconds": seconds, "images_per_second": speeds, "waiting": waits}


class Runs:
    """Whole runs in a folder that is thrown away."""

    def __init__(self, machine: Machine, folder: Path, left: Callable[[], float]) -> None:
        self.machine, self.folder, self.left = machine, folder, left
        self.steps = 4 if machine.small else 12

    @cached_property
    def data(self) -> Path:
        """Small images in two classes."""
        count = 32 if self.machine.small else 256
        for number, name in enumerate(("one", "other")):
            write_images(self.folder / "small" / name, count, 120, 90, number * count)
        return self.folder / "small"

    def short(self, out: Path, fields: Mapping[str, Any], **environment: str) -> Row:
        """A short run of LEWEL_B, with a checkpoint in its middle, and fields of its own."""
        recipe = "resnet8_lewel_b.imagenette32_15ep" if self.machine.small else "resnet18_lewel_b.imagenette96_100ep"
        usual = {
            "data": self.data,
            "batch_size": 16 if self.machine.small else 64,
            "max_steps": self.steps,
            "log_every": 2,
            "checkpoints.every_steps": self.steps // 2,
            "monitoring.knn_every": 0,
            "precision": self.machine.precision,
            "layout": "channels_last",
        }
        return run(out, recipe, {**usual, **fields}, self.left(), environment)

    @cached_property
    def straight(self) -> Row:
        """The short run that others are held against, by deterministic operations, in the folder "a"."""
        return self.short(self.folder / "a", REPEATABLE)

    def state(self, out: Path) -> dict[str, Tensor]:
        """All tensors of a run's last checkpoint."""
        folder = RunFolder(out).checkpoints / folder_name(self.steps)
        files = sorted(folder.glob("*.safetensors"))
        return {f"{path.stem}/{key}": value for path in files for key, value in load_file(path).items()}

    def resumed(self) -> Iterator[Row]:
        """A run twice, and once more from its middle: the tensors of the last checkpoints that differ."""
        a, b, middle = (self.folder / name for name in ("a", "b", "middle"))
        yield {"what": "straight on", **self.straight}
        yield {"what": "straight on again", **self.short(b, REPEATABLE)}
        shutil.copytree(a, middle)
        shutil.rmtree(RunFolder(middle).checkpoints / folder_name(self.steps))
        RunFolder(middle).results.unlink()
        yield {"what": "from the middle", **self.short(middle, REPEATABLE)}
        yield {"straight on, twice": difference(self.state(a), self.state(b))}
        yield {"from the middle": difference(self.state(a), self.state(middle))}

    def commands(self) -> Iterator[Row]:
        """Short commands that go where the other parts do not, each for itself: ways to compute chosen, compiled,
        activations anew, finer maps, k-means, kept features, and what is asked of a backbone."""
        small = self.machine.small
        arch, half, stride = ("resnet8", "fp32", 2) if small else ("resnet18", "fp16", 16)
        few = {"data": self.data, "max_steps": 4}
        taught = {"method.teacher": TEACHER, "method.teacher_output": "pooled", "method.kept": self.folder / "kept"}
        ways: dict[str, Callable[[Path], Row]] = {
            "clusters": self.own("resnet8_deepcluster.tiny_200ep", few | {"batch_size": 16, "method.clusters": 10}),
            "prototypes": self.own(f"{arch}_pcl.own", few | {"method.instance_epochs": 0}),
            "compiled": partial(self.short, fields={"compile": True}),
            "less memory": partial(
                self.short, fields={"grad_checkpointing": True, "output_stride": stride, "precision": half}
            ),
            "taught": self.own(f"{arch}_distilled.own", few | taught),
            "knn": self.asked("evaluate", "knn"),
            "linear": self.asked("evaluate", "linear", preset="lewel_b", epochs=2, hold_out=16, batch_size=32),
            "embed": self.asked("embed", form=".npy"),
        }
        (self.folder / "commands").mkdir()
        for what, way in ways.items():
            yield caught({"what": what}, partial(way, self.folder / "commands" / what.replace(" ", "_")))

    def own(self, recipe: str, fields: Mapping[str, Any]) -> Callable[[Path], Row]:
        """A run of a recipe that leaves precision and layout open, by the folder that it writes."""
        return lambda out: run(out, recipe, fields, self.left(), {})

    def asked(self, *words: str, form: str = "", **fields: Any) -> Callable[[Path], Row]:
        """A command that asks something of the backbone of the straight run, by what it writes."""

        def ask(out: Path) -> Row:
            _ = self.straight
            options = options_of({"data": self.data, **fields, "out": out.with_suffix(form)})
            return {"seconds": carried_out([*words, str(self.folder / "a"), *options], self.left(), {})}

        return ask

    def nccl(self) -> Iterator[Row]:
        """The same run as the only process of a launcher, wrapped for many: by NCCL on a GPU, by gloo without one."""
        _ = self.straight
        alone = self.folder / "alone"
        on_cpu = {} if self.machine.device.type == "cuda" else {"ACCELERATE_USE_CPU": "true"}
        launched = self.short(alone, REPEATABLE, **ALONE, MASTER_PORT=PORT, **on_cpu)
        yield {"what": "one process of a launcher", **launched}
        yield {"against a plain run": difference(self.state(self.folder / "a"), self.state(alone))}

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
