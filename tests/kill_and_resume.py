"""Kill small runs at random moments and start them again: python tests/kill_and_resume.py [--kills 400]

A run of every method, with 0 and 2 reading workers and on one and two processes, is killed by SIGKILL some times over
and started again by the same command until it ends. What it leaves must equal, bit for bit, what the same run leaves
undisturbed: every tensor of the last checkpoint (weights, queue, EMA, optimiser, what each rank keeps), its scalars,
the log, the results and the backbone. The moments come from a seeded generator and are found from outside, by the
clock and by files that appear; the trained code knows nothing of this. Trials that are written down are not repeated.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import platform
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"
ROOT = Path(__file__).resolve().parents[1]

import torch  # noqa: E402
from killing import Attempt, where_it_died  # noqa: E402
from runs import image_folder, tiny  # noqa: E402
from small_methods import CONFIGS  # noqa: E402

from ssl_backbones.files import write_json  # noqa: E402
from ssl_backbones.methods import MethodConfig  # noqa: E402
from ssl_backbones.recipes.recipe import Recipe  # noqa: E402
from ssl_backbones.recipes.settings import Checkpoints  # noqa: E402
from ssl_backbones.runs import checkpoint, manifest  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "kill_and_resume.json"
EPOCHS, IMAGES = 4, 26
"""Three steps an epoch with two images left over, as the batch is 8."""
MOMENTS = ("starting", "between steps", "writing", "measuring", "epoch's edge", "leaving", "any time")
"""The moment of a kill; the place where it really struck is read from the files it left."""


@dataclass(frozen=True)
class Setting:
    """A way to train a method."""

    method: str
    workers: int
    processes: int

    def __str__(self) -> str:
        return f"{self.method}, {self.workers} workers, {self.processes} process{'es' if self.processes > 1 else ''}"


def recipe_of(kind: type[MethodConfig], data: Path, out: Path, workers: int = 0) -> Recipe:
    """Four epochs of a method around a ResNet-8 at 16 pixels, with a checkpoint every second step."""
    often = Checkpoints(every_steps=2, every_minutes=0)
    return tiny(kind, data, out, epochs=EPOCHS, workers=workers, checkpoints=often, log_every=1)


def outcome(run: Path) -> dict[str, str]:
    """Digests of all that a run leaves, but for the day it ended on and the time it took."""
    saved = checkpoint.load_latest(run / "checkpoints")
    assert saved is not None
    verified = manifest.verify(run / "checkpoints" / manifest.folder_name(saved.step))
    results = json.loads((run / "results.json").read_text())
    results.pop("date")
    results.pop("seconds", None)
    return {name: file["sha256"] for name, file in verified["files"].items()} | {
        "step": str(saved.step),
        "scalars": digest(json.dumps(saved.scalars, sort_keys=True).encode()),
        "log.jsonl": digest((run / "log.jsonl").read_bytes()),
        "results.json": digest(json.dumps(results, sort_keys=True).encode()),
        "backbone": digest((run / "backbone" / "model.safetensors").read_bytes()),
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """The parts in which two outcomes are not the same."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def undisturbed(kind: type[MethodConfig], processes: int, data: Path, out: Path) -> tuple[dict[str, str], float]:
    """The digests of an undisturbed run, and the seconds it took."""
    attempt = Attempt(recipe_of(kind, data, out), processes)
    while attempt.running():
        time.sleep(0.01)
    if attempt.codes() != {0}:
        raise RuntimeError(f"{kind.name} does not even train undisturbed: {attempt.said()}")
    return outcome(out), time.monotonic() - attempt.began


def killed_run(
    recipe: Recipe, processes: int, kills: int, generator: random.Random, seconds: float
) -> tuple[list[dict[str, Any]], str]:
    """One run killed up to so many times before it ends: where each kill struck, and what went wrong, if anything."""
    struck: list[dict[str, Any]] = []
    while True:
        attempt = Attempt(recipe, processes)
        moment = generator.choice(MOMENTS) if len(struck) < kills else None
        victims = generator.choice([[0], [1], [0, 1]]) if processes > 1 else [0]
        if moment is None or not attempt.wait_for(moment, generator, seconds):
            attempt.join()
            return struck, "" if attempt.codes() == {0} else f"it ended with {attempt.codes()}: {attempt.said()}"
        finished, survivors_took = attempt.kill(victims)
        if survivors_took is None:
            return struck, f"the other process did not end by itself: {attempt.said()}"
        if not finished:
            where = where_it_died(attempt)
            struck.append({"meant": moment, "where": where, "ranks": victims, "others_ended_in_s": survivors_took})


def trial(
    setting: Setting, kills: int, seed: int, data: Path, reference: tuple[dict[str, str], float]
) -> dict[str, Any]:
    """A method's run in one setting killed so often, over as many runs as that takes."""
    kind = next(kind for kind in CONFIGS if kind.name == setting.method)
    generator = random.Random(f"{seed} {setting}")
    struck: list[dict[str, Any]] = []
    survived, runs, wrong = 0, 0, []
    expected, seconds = reference
    start = time.monotonic()
    while len(struck) < kills and runs < 3 * kills:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            out = Path(folder) / "run"
            recipe = recipe_of(kind, data, out, setting.workers)
            here, trouble = killed_run(recipe, setting.processes, kills - len(struck), generator, seconds)
            differ = [] if trouble else differences(outcome(out), expected)
        runs += 1
        struck += here
        survived += 0 if trouble or differ else len(here)
        wrong += [trouble] if trouble else [f"differs in {', '.join(differ)}"] if differ else []
    return {
        "method": setting.method,
        "workers": setting.workers,
        "processes": setting.processes,
        "runs": runs,
        "kills": len(struck),
        "survived": survived,
        "wrong": wrong,
        "struck": struck,
        "seconds": round(time.monotonic() - start, 1),
        "made_with": checkpoint.surroundings(1) | {"platform": platform.platform(terse=True)},
    }


def summary(trials: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """All trials, and what they come to."""
    struck = [kill for one in trials for kill in one["struck"]]
    by_method: collections.Counter[str] = collections.Counter()
    for one in trials:
        by_method[one["method"]] += one["kills"]
    return {
        "seed": seed,
        "kills": sum(one["kills"] for one in trials),
        "survived": sum(one["survived"] for one in trials),
        "runs": sum(one["runs"] for one in trials),
        "where": dict(collections.Counter(kill["where"] for kill in struck).most_common()),
        "by_method": dict(sorted(by_method.items())),
        "by_workers": {str(w): sum(one["kills"] for one in trials if one["workers"] == w) for w in (0, 2)},
        "by_processes": {str(p): sum(one["kills"] for one in trials if one["processes"] == p) for p in (1, 2)},
        "longest_until_others_ended_s": max((kill["others_ended_in_s"] for kill in struck), default=0.0),
        "seconds": round(sum(one["seconds"] for one in trials), 1),
        "trials": trials,
    }


def settings_of(names: list[str], workers: list[int], processes: list[int]) -> list[Setting]:
    """Every way in which the methods are tried; those on one process come first, as they cost least."""
    known = [kind.name for kind in CONFIGS]
    if unknown := sorted({*names} - {*known, "all"}):
        raise SystemExit(f"{unknown[0]!r} is no method; choose from all, {', '.join(known)}")
    chosen = known if "all" in names else names
    return [Setting(name, w, p) for p in processes for w in workers for name in chosen]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=400, help="over all trials, at least (400)")
    parser.add_argument("--methods", nargs="+", default=["all"], metavar="NAME", help="all, or some by name")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2], help="that read images (0 2)")
    parser.add_argument("--processes", nargs="+", type=int, choices=(1, 2), default=[1, 2], help="that train (1 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write, and to go on with")
    return parser.parse_args()


def main() -> None:
    """Go through the trials, write each down when it is done, and print how many kills were survived."""
    given = arguments()
    settings = settings_of(given.methods, given.workers, given.processes)
    each = -(-given.kills // len(settings))
    before = json.loads(given.out.read_text()) if given.out.exists() else {"seed": given.seed, "trials": []}
    trials = before["trials"] if before["seed"] == given.seed else []
    done = {(one["method"], one["workers"], one["processes"]) for one in trials if one["kills"] >= each}
    references: dict[tuple[str, int], tuple[dict[str, str], float]] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        data = image_folder(Path(folder) / "photos", IMAGES)
        for setting in settings:
            if (setting.method, setting.workers, setting.processes) in done:
                continue
            key = (setting.method, setting.processes)
            if key not in references:
                kind = next(kind for kind in CONFIGS if kind.name == setting.method)
                references[key] = undisturbed(kind, setting.processes, data, Path(folder) / "-".join(map(str, key)))
            one = trial(setting, each, given.seed, data, references[key])
            same = (one["method"], one["workers"], one["processes"])
            trials = [old for old in trials if (old["method"], old["workers"], old["processes"]) != same] + [one]
            given.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(given.out, before | summary(trials, given.seed))
            print(f"{setting}: survived {one['survived']}/{one['kills']} {'; '.join(one['wrong'])}", flush=True)
    total = summary(trials, given.seed)
    print(f"survived {total['survived']}/{total['kills']}")
    raise SystemExit(total["survived"] != total["kills"])


if __name__ == "__main__":
    main()
