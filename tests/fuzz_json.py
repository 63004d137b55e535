"""Feed every command that reads JSON with damaged files: python tests/fuzz_json.py [--calls 2000] [--seed 0]

A run, one that was stopped, evaluations, a published copy with its training state, a bundle, two caches of images and a
kept file are made once. Each call changes one of their JSON files by a seeded generator (other types and sizes, deep
nesting, NaN, missing and foreign keys, bytes cut, flipped and empty; manifests and indices sealed anew) and hands the
folder to a reader or a command. It must do its work or refuse in one sentence, within some seconds and without taking
much memory. What ended otherwise is printed and kept as a file. The counts go to a results file.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conftest
import runs
from evaluations import labelled_images
from fuzz_reader import peak
from json_damage import damaged

import ssl_backbones
from ssl_backbones import commands
from ssl_backbones.data import open_images
from ssl_backbones.evaluate.comparison.comparison import Column, Comparison, Row
from ssl_backbones.evaluate.comparison.table import collect, markdown
from ssl_backbones.fetch import kept
from ssl_backbones.methods import MoCoV2Config, method_from_run
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.cache import Caching, cached
from ssl_backbones.train.cache_file import UnfinishedCache

RESULTS = conftest.ROOT / "benchmarks" / "results" / "fuzz_json.json"
SLOW = 30.0
"""Seconds beyond which an answer counts as a hang, on a machine that does other things as well."""
PLAIN = ("--size", "16", "--workers", "0")


@dataclass(frozen=True)
class Scene:
    """Folders as runs, evaluations and other commands leave them, below one root, and the images they were made of."""

    root: Path
    images: Path
    labelled: Path

    def of(self, out: Path, **fields: Any) -> Recipe:
        """The recipe of the runs, in another folder."""
        return runs.tiny(MoCoV2Config, self.images, out, {}, **fields)


Action = Callable[[Scene, Path], object]
"""Something that reads JSON: it takes a copy of the scene's folders."""


def make_scene(place: Path) -> Scene:
    """Everything that the actions read."""
    root, images = place / "root", runs.image_folder(place / "photos")
    made = runs.run(runs.tiny(MoCoV2Config, images, root / "run"))
    scene = Scene(root, images, labelled_images(place / "labelled"))
    for name, more in (("knn", ()), ("random", ("--random",))):
        evaluated(scene, root, "run", name, *more)
    runs.stop(scene.of(root / "stopped"), 4)
    command("bundle", str(made.path), "--out", str(root / "bundle"))
    state = ("--with_state", "--out", str(root / "state"))
    command("publish", str(made.path), "--repo", "a/b", "--data_terms", "CC0", "--dry_run", *state)
    source = open_images(images)
    cached(source, "photos", Caching(root / "cache"))
    UnfinishedCache(root / "unfinished", source, "photos", 0).add(range(len(source)))
    (root / "kept").mkdir()
    shutil.copyfile(made.path / "backbone" / "model.safetensors", root / "kept" / kept.CHECKPOINT)
    kept.record(root / "kept", "https://example.org/weights")
    return scene


def command(*words: str) -> None:
    """Run a command of the shell in this process; SystemExit with its exit code, unless that is 0."""
    runs.forget()
    if code := commands.main(words):
        raise SystemExit(code)


def pretrained(name: str, **fields: Any) -> Action:
    """Start, or go on with, the run in a folder."""
    return lambda scene, root: runs.run(scene.of(root / name, **fields))


def evaluated(scene: Scene, root: Path, model: str, out: str, *more: str) -> None:
    places = ("--data", str(scene.labelled), "--out", str(root / out))
    command("evaluate", "knn", str(root / model), *PLAIN, *places, *more)


def compared(scene: Scene, root: Path) -> None:
    """Collect a table from the results of an evaluation."""
    row, column = Row("a", model="run"), Column("k-NN", "knn", "k=20, T=0.07")
    comparison = Comparison("Title", "photos", root / "compared", (row,), (column,))
    path = comparison.results(row, column, 0)
    path.parent.mkdir(parents=True)
    shutil.copyfile(root / "knn" / "results.json", path)
    markdown(comparison, collect(comparison))


def publication(scene: Scene, root: Path, *words: str) -> None:
    """Write all that would be published, and its card."""
    terms = ("--data_terms", "CC0", "--dry_run", "--evaluation", str(root / "knn"), str(root / "random"))
    command("publish", str(root / "run"), "--repo", "a/b", *terms, *words)


def looked_at(scene: Scene, root: Path) -> None:
    few = ("--count", "2", "--bank", "4", "--size", "16", "--map", "pca")
    command("visualize", str(root / "run"), "--data", str(scene.images), "--out", str(root / "page"), *few)


def embedded(scene: Scene, root: Path) -> None:
    out = ("--out", str(root / "features.parquet"))
    command("embed", str(root / "run"), *PLAIN, "--data", str(scene.images), *out)


def gone_on_with(scene: Scene, root: Path) -> None:
    """Take up a cache that was not finished."""
    UnfinishedCache(root / "unfinished", open_images(scene.images), "photos", 0).unreadable_keys()


RUN = ("run/recipe.json", "run/results.json", "run/backbone/config.json", "run/checkpoints/*/MANIFEST.json")
LOGS = ("log.jsonl", "speed.jsonl")
ACTIONS: dict[str, tuple[Action, tuple[str, ...]]] = {
    "create_model": (lambda _, root: ssl_backbones.create_model(root / "run", pretrained=True), RUN[1:3]),
    "create_model random": (lambda _, root: ssl_backbones.create_model(root / "run", num_classes=5), RUN[2:3]),
    "describe": (lambda _, root: command("describe", str(root / "run")), RUN[1:3]),
    "evaluate": (lambda scene, root: evaluated(scene, root, "run", "new"), RUN[:3]),
    "evaluate again": (
        lambda scene, root: evaluated(scene, root, "run", "knn"),
        ("knn/results.json", "knn/recipe.json", RUN[2]),
    ),
    "embed": (embedded, RUN[2:3]),
    "visualize": (looked_at, (*RUN, *(f"run/{name}" for name in LOGS))),
    "bundle": (lambda _, root: command("bundle", str(root / "run"), "--out", str(root / "new")), RUN[1:3]),
    "export": (
        lambda _, root: command("export", str(root / "run"), "--format", "torchvision", "--out", str(root / "new.pth")),
        RUN[1:3],
    ),
    "publish": (publication, (*RUN, "knn/results.json", "random/results.json")),
    "publish state": (
        lambda scene, root: publication(scene, root, "--with_state"),
        (RUN[3], "knn/results.json", "random/results.json"),
    ),
    "compare": (compared, ("knn/results.json",)),
    "tables": (lambda _, root: command("tables", "lewel-1", "--results", str(root)), ("knn/results.json", RUN[1])),
    "method_from_run": (lambda _, root: method_from_run(root / "run"), (RUN[0], RUN[3])),
    "method of state": (
        lambda _, root: method_from_run(root / "state"),
        ("state/recipe.json", "state/**/MANIFEST.json"),
    ),
    "model of state": (
        lambda _, root: ssl_backbones.create_model(root / "state", pretrained=True),
        ("state/config.json",),
    ),
    "pretrain finished": (pretrained("run"), (RUN[0], RUN[1], RUN[3])),
    "pretrain stopped": (
        pretrained("stopped"),
        ("stopped/recipe.json", "stopped/checkpoints/*/MANIFEST.json", *(f"stopped/{name}" for name in LOGS)),
    ),
    "verify": (lambda _, root: command("verify", str(root / "bundle")), ("bundle/bundle.json",)),
    "model of bundle": (
        lambda _, root: ssl_backbones.create_model(root / "bundle" / "run", pretrained=True),
        ("bundle/*/config.json",),
    ),
    "cache": (
        lambda scene, root: cached(open_images(scene.images), "photos", Caching(root / "cache"))[3],
        ("cache/*/INDEX.json",),
    ),
    "unfinished cache": (gone_on_with, (".tmp-unfinished/blocks.jsonl",)),
    "kept": (lambda _, root: kept.recall(root / "kept"), ("kept/record.json",)),
}
"""The readers of JSON by name, and the files that each reads."""


def answer(call: Callable[[], object]) -> str:
    """The end of a call: "done", "refused", or its fault and the place it came from."""
    began = time.monotonic()
    out, err = io.StringIO(), io.StringIO()
    said = "done"
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(action="ignore"):
            call()
    except Refusal as error:
        said = refusal(str(error))
    except SystemExit:
        said = refusal(err.getvalue().strip())
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = ([frame for frame in frames if "ssl_backbones" in frame.filename] or frames)[-1]
        said = f"raised {type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:100]}"
    return said if time.monotonic() - began < SLOW else f"took {time.monotonic() - began:.0f} s"


def refusal(sentence: str) -> str:
    """Judge the words of a refusal: one line, of a length that can be read, and no raw error of the system."""
    sound = sentence and "\n" not in sentence and "[Errno" not in sentence and len(sentence) < 3000
    return "refused" if sound else f"says {sentence[:300]!r}"


def trial(scene: Scene, number: int, seed: int, work: Path) -> tuple[str, str, bytes]:
    """The name of an action and its file, its answer, and the damaged file, as functions of two numbers."""
    generator = random.Random(f"{seed} {number}")
    name = generator.choice(sorted(ACTIONS))
    action, patterns = ACTIONS[name]
    pattern = generator.choice(patterns)
    file = generator.choice(sorted(path.relative_to(scene.root) for path in scene.root.glob(pattern)))
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    for folder in {Path(each).parts[0] for each in patterns}:
        shutil.copytree(scene.root / folder, root / folder)
    content = damaged((root / file).read_bytes(), file.suffix == ".jsonl", generator)
    (root / file).write_bytes(content)
    try:
        said = answer(lambda: action(scene, root))
    finally:
        runs.forget()
    return f"{name}, {file}", said, content


def fuzz(calls: int, seed: int, keep: Path, scene: Scene, first: int = 0) -> dict[str, Any]:
    """The counts of how some calls ended; files that were answered wrongly are kept."""
    counts: Counter[str] = Counter()
    by_action: Counter[str] = Counter()
    before = peak()
    with tempfile.TemporaryDirectory() as work:
        for number in range(first, first + calls):
            name, said, content = trial(scene, number, seed, Path(work))
            sound = said in ("done", "refused")
            counts[said if sound else "wrong"] += 1
            by_action[name.partition(",")[0]] += 1
            if not sound:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}.json").write_bytes(content)
                print(f"{name}, number {number}: {said}", flush=True)
    return {
        "seed": seed,
        "calls": calls,
        "answers": dict(counts),
        "wrong": counts["wrong"],
        "by_action": dict(sorted(by_action.items())),
        "memory_grew_mb": round(peak() - before),
    }


def main() -> None:
    """Fuzz, write down and print the counts; the exit code is 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first call, to repeat one")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, redirect_stdout(io.StringIO()):
        scene = make_scene(Path(place))
        with redirect_stdout(sys.__stdout__):
            counts = fuzz(given.calls, given.seed, given.out.with_suffix(".found"), scene, given.first)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{counts['calls']} calls: {counts['answers']}")
    raise SystemExit(counts["wrong"] > 0)


if __name__ == "__main__":
    main()
