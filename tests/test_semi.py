"""A few labels: which images they are, that everybody draws the same, and which number is whose."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import labelled_runs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_runs import divided, killed_at, outcome, small
from small_methods import Drawn

from ssl_backbones.data import ImageSourceError, open_images
from ssl_backbones.data.subset import Subset, as_list, at
from ssl_backbones.evaluate.classification.finetune import FinetuneConfig
from ssl_backbones.evaluate.classification.subset import labelled_rows, listed, stratified
from ssl_backbones.evaluate.protocols import semi
from ssl_backbones.recipes.settings import ScheduleConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divided(tmp_path_factory.mktemp("tinted"))


LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=300).map(np.array)
SHARES = st.floats(0.001, 1.0)


@given(LABELS, SHARES, SHARES, st.integers(0, 2**40))
def test_the_draw_is_nested_and_fair(labels: np.ndarray, one: float, other: float, seed: int) -> None:
    less, more = (stratified(labels, share, seed) for share in sorted((one, other)))
    assert set(less) <= set(more)
    for share, rows in ((min(one, other), less), (max(one, other), more)):
        assert (np.diff(rows) > 0).all()
        for label in np.unique(labels):
            there = int((labels == label).sum())
            assert int((labels[rows] == label).sum()) == max(1, round(share * there))


RECORDED = [22, 34, 80, 81, 96, 111, 131, 193]


def test_the_draw_is_the_same_everywhere() -> None:
    """Recorded: another machine, or another version of anything, draws these too."""
    labels = np.arange(200) % 4
    assert stratified(labels, 0.05, 0).tolist() == RECORDED
    assert stratified(labels, 0.05, 1).tolist() != RECORDED
    assert stratified(labels, 1.0, 0).tolist() == list(range(200))


def test_imagenets_shares_are_of_simclrs_sizes() -> None:
    """Its 1% are 12 or 13 of a class, its 10% are 128 or 129, of about 1281."""
    labels = np.repeat(np.arange(3), [1300, 1281, 732])
    assert np.bincount(labels[stratified(labels, 0.01, 0)]).tolist() == [13, 13, 7]
    assert np.bincount(labels[stratified(labels, 0.1, 0)]).tolist() == [130, 128, 73]


# Lists


def test_a_list_names_images_by_key_or_by_the_last_part_of_it(data: Path, tmp_path: Path) -> None:
    images = open_images(data)
    names = tmp_path / "list.txt"
    names.write_text("red_04.png\n\ngreen/green_00.png\r\nblue_01.png\nred/red_04.png\n")
    rows = listed(images, names)
    assert [images.keys[row] for row in rows] == ["blue/blue_01.png", "green/green_00.png", "red/red_04.png"]


def test_names_that_match_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text("red_04.png\nn01440764_10026.JPEG\n")
    with pytest.raises(ImageSourceError, match=r"names 2 images, and 1 of them are not in the data \('n01440764"):
        listed(open_images(data), names)


def test_names_that_mean_two_images_are_refused(tmp_path: Path) -> None:
    data = divided(tmp_path / "photos") / "red"
    twin = data.parent / "green" / "red_04.png"
    twin.write_bytes((data / "red_04.png").read_bytes())
    (tmp_path / "list.txt").write_text("red_04.png\n")
    with pytest.raises(ImageSourceError, match="more than one image of that name"):
        listed(open_images(data.parent), tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("green/red_04.png\n")
    images = open_images(data.parent)
    assert [images.keys[row] for row in listed(images, tmp_path / "list.txt")] == ["green/red_04.png"]


@pytest.mark.parametrize(("content", "complaint"), [("\n \n", "names no image"), (None, "cannot be read")])
def test_a_list_of_nothing_is_refused(content: str | None, complaint: str, data: Path, tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    if content is not None:
        names.write_text(content)
    with pytest.raises(ImageSourceError, match=complaint):
        listed(open_images(data), names)


def test_a_subset_is_the_images_at_its_rows(data: Path) -> None:
    images = open_images(data)
    some = Subset(images, np.array([30, 2]))
    assert list(some.keys) == [images.keys[30], images.keys[2]]
    assert some.labels.tolist() == [images.labels[30], images.labels[2]]
    assert some[0].tobytes() == images[30].tobytes()
    assert some.classes == images.classes
    assert len({images.fingerprint, some.fingerprint, Subset(images, np.array([2, 30])).fingerprint}) == 3
    assert at(images, np.arange(36)) is images


def test_images_without_a_label_are_left_out() -> None:
    images = Drawn(9)
    images.labels = np.array([0, -1, 2, 0, -1, 2, 0, 1, 2])
    assert labelled_rows(images).tolist() == [0, 2, 3, 5, 6, 7, 8]


# Presets and runs


@pytest.mark.parametrize(
    ("name", "share", "head", "backbone"), [("lewel_1pct", 0.01, 1.0, 1e-4), ("lewel_10pct", 0.1, 0.1, 0.01)]
)
def test_presets_are_the_source_to_the_letter(name: str, share: float, head: float, backbone: float) -> None:
    preset = semi.PRESETS[name]
    optimizer = preset.optimizer
    assert (preset.share, preset.peak_lr, optimizer.backbone_lr) == (share, head, backbone)
    assert (optimizer.kind, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (preset.epochs, preset.batch_size, preset.judge_every, preset.source_reports) == (50, 256, 5, "best")
    assert preset.schedule == ScheduleConfig("step", milestones=(30, 40))
    assert preset.task == FinetuneConfig()
    assert preset.task.views.augment


def test_the_best_of_every_fifth_epoch_and_the_last_are_told(data: Path, tmp_path: Path) -> None:
    options = small(semi, "lewel_10pct", data, tmp_path / "run", share=0.5, epochs=11)
    results = labelled_runs.run(semi, options)
    tests, numbers = results["tests"], results["numbers"]
    assert [test["epoch"] for test in tests] == [5, 10, 11]
    assert numbers["top-1"]["value"] == tests[-1]["top-1"]
    assert numbers["top-1, best of every 5 epochs"]["value"] == max(test["top-1"] for test in tests)
    assert results["source_reports"] == "best"


def test_what_was_drawn_is_written_out_and_can_be_given_back(data: Path, tmp_path: Path) -> None:
    drawn = small(semi, "lewel_10pct", data, tmp_path / "drawn", share=0.3, epochs=1, batch_size=4)
    results = labelled_runs.run(semi, drawn)
    images = open_images(data)
    rows = stratified(images.labels, 0.3, 0)
    written = (tmp_path / "drawn" / "subset.txt").read_bytes()
    assert written == as_list(at(images, rows)) == "".join(f"{images.keys[row]}\n" for row in rows).encode()
    subset = results["subset"]
    assert subset["sha256"] == hashlib.sha256(written).hexdigest()
    assert (subset["images"], subset["classes"], subset["of"]["images"]) == (12, 3, 36)
    assert {images.fingerprint, images.fingerprint_by_sizes} <= set(subset["of"].values())
    assert (results["data"]["images"], results["not_learnt_from"]) == (12, 24)

    given = dataclasses.replace(drawn, out=str(tmp_path / "given"), subset=str(tmp_path / "drawn" / "subset.txt"))
    again = labelled_runs.run(semi, given)
    assert again["subset"]["sha256"] == subset["sha256"]
    assert again["numbers"] == results["numbers"]
    assert outcome(tmp_path / "given")["state"] == outcome(tmp_path / "drawn")["state"]


def test_runs_of_other_seeds_learn_from_the_same_images(data: Path, tmp_path: Path) -> None:
    shas = []
    for seed in (0, 1):
        options = small(semi, "lewel_1pct", data, tmp_path / str(seed), share=0.2, epochs=1, batch_size=3, seed=seed)
        shas.append(labelled_runs.run(semi, options)["subset"]["sha256"])
    assert shas[0] == shas[1]
    other = dataclasses.replace(options, subset_seed=1, out=str(tmp_path / "other"))
    assert labelled_runs.run(semi, other)["subset"]["sha256"] != shas[0]


def test_a_run_that_was_killed_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    """Between two tests, so that the first is remembered."""
    checkpoints = labelled_runs.Checkpoints(every_steps=3, every_minutes=0)
    fields = {"share": 0.5, "epochs": 4, "judge_every": 1, "checkpoints": checkpoints}
    options = small(semi, "lewel_10pct", data, tmp_path / "whole", **fields)
    labelled_runs.run(semi, options)
    again = labelled_runs.elsewhere(options, tmp_path / "stopped")
    killed_at(7, semi, again)
    labelled_runs.run(semi, again)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_another_subset_in_the_same_folder_is_refused(data: Path, tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text("".join(f"{name}_{number:02}.png\n" for name in labelled_runs.COLOURS for number in range(4)))
    options = small(semi, "lewel_1pct", data, tmp_path / "run", epochs=1, batch_size=4, subset=str(names))
    labelled_runs.run(semi, options)
    names.write_text(names.read_text().replace("red_03", "red_07"))
    with pytest.raises(ImageSourceError, match="not those that the run"):
        labelled_runs.run(semi, options)


def test_a_list_without_a_class_that_is_asked_about_is_refused(data: Path, tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text("".join(f"{name}_{number:02}.png\n" for name in ("blue", "red") for number in range(4)))
    options = small(semi, "lewel_1pct", data, tmp_path / "run", batch_size=4, subset=str(names))
    with pytest.raises(ImageSourceError, match=r"list\.txt: there are images of 'green', and none to learn from"):
        labelled_runs.run(semi, options)


def test_too_few_images_for_a_batch_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError, match="at most 3"):
        labelled_runs.run(semi, small(semi, "lewel_1pct", data, tmp_path / "run"))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_wrong_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share is"):
        dataclasses.replace(semi.ONE, share=share)
