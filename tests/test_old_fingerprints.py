"""Records of version 0.1 name images by their sizes: they are recognised as long as the images are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import runs
from evaluations import evaluated, labelled_images
from runs import image_folder, killed
from test_head_training import in_epoch
from test_replaced_images import TRAINED, images_in, replace, unpacked

from ssl_backbones.data import Images, open_images
from ssl_backbones.data.cached import INDEX
from ssl_backbones.evaluate.classification import head_training
from ssl_backbones.files import object_digest
from ssl_backbones.hub.evaluations import same_images
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.mining.pairs import FORM, PairsError, check_same
from ssl_backbones.runs.log import RunLog
from ssl_backbones.train.cache import ImageCacheError


@contextmanager
def as_version_0_1() -> Iterator[None]:
    """Everything that is written meanwhile names images by their sizes alone."""
    kinds = [Images]
    for kind in kinds:
        kinds += kind.__subclasses__()
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            if "fingerprint" in vars(kind):
                by_sizes = cached_property(lambda images: images.fingerprint_by_sizes)
                by_sizes.__set_name__(kind, "fingerprint")
                patch.setattr(kind, "fingerprint", by_sizes)
        yield


def without_newer_fields(path: Path) -> None:
    """The JSON file as version 0.1 wrote it."""

    def stripped(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        newer = ("_by_sizes", "content_digest")
        return {name: stripped(part) for name, part in value.items() if not name.endswith(newer)}

    content = stripped(json.loads(path.read_text()))
    if "sha256" in content:
        content["sha256"] = object_digest(content)
    path.write_text(json.dumps(content))


@contextmanager
def going_on() -> Iterator[None]:
    """A run that goes on behind a step that was saved."""
    begin, steps = RunLog.__init__, []

    def noted(log: RunLog, *words: Any, **options: Any) -> None:
        steps.append(options["resumed_at"])
        begin(log, *words, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "__init__", noted)
        yield
    assert steps
    assert all(steps)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_run_that_version_0_1_began_goes_on(
    kind: Callable[[Path], tuple[Path, Callable[[], object]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_training, "EVERY", -1.0)
    _, start = kind(tmp_path)
    with as_version_0_1(), runs.after(2, killed), in_epoch(1, killed), pytest.raises(runs.Killed):
        start()
    without_newer_fields(tmp_path / "out" / "recipe.json")
    with going_on():
        start()
    assert (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("protocol", ["knn", "logistic"])
def test_an_evaluation_that_version_0_1_finished_is_left_alone(tmp_path: Path, protocol: str) -> None:
    data = labelled_images(tmp_path / "data")
    with as_version_0_1():
        evaluated(protocol, data, tmp_path / "out")
    for name in ("recipe.json", "results.json"):
        without_newer_fields(tmp_path / "out" / name)
    before = (tmp_path / "out" / "results.json").stat().st_mtime_ns
    evaluated(protocol, data, tmp_path / "out")
    assert (tmp_path / "out" / "results.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("reencode", [0, 20])
def test_a_cache_of_version_0_1_is_taken_if_every_image_is_the_same(tmp_path: Path, reencode: int) -> None:
    data = unpacked(image_folder(tmp_path / "data"))
    cache = str(tmp_path / "cache")
    recipe = runs.tiny(BYOLConfig, data, tmp_path / "first", cache=cache, epochs=1, reencode=reencode)
    with as_version_0_1():
        runs.run(recipe)
    (place,) = (tmp_path / "cache").glob("*/")
    without_newer_fields(place / INDEX)
    runs.run(runs.elsewhere(recipe, tmp_path / "second"))
    replace(images_in(data)[11])
    with pytest.raises(ImageCacheError, match=r"is decoded to other pixels than those in the cache"):
        runs.run(runs.elsewhere(recipe, tmp_path / "third"))


def test_pairs_that_version_0_1_mined_are_those_of_the_images(tmp_path: Path) -> None:
    images = open_images(image_folder(tmp_path / "data"))
    for known in (images.fingerprint, images.fingerprint_by_sizes):
        check_same("pairs", {"form": FORM, "images": len(images), "fingerprint": known}, images)
    with pytest.raises(PairsError, match="were mined from other images"):
        check_same("pairs", {"form": FORM, "images": len(images), "fingerprint": "0" * 64}, images)


def test_records_of_both_ages_are_compared(tmp_path: Path) -> None:
    new, same, other = ({"fingerprint": content, "fingerprint_by_sizes": "s"} for content in ("a", "a", "b"))
    assert same_images(new, same)
    assert not same_images(new, other)  # of equal sizes
    assert same_images({"fingerprint": "s"}, new)
    assert same_images(new, {"fingerprint": "s"})
    assert same_images({"fingerprint": "s"}, {"fingerprint": "s"})
    assert not same_images({"fingerprint": "t"}, new)
    assert not same_images({"fingerprint": "a"}, {"fingerprint": "s"})
