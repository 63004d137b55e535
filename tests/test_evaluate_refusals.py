"""Refusals of evaluate.py: one sentence that names the fault and its place, and exit code 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evaluations import evaluated, labelled_images, parquet, refusal
from runs import image_folder
from scripts import script


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_images(tmp_path_factory.mktemp("evaluate") / "photos")


def test_labels_that_are_not_there(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for protocol in ("knn", "logistic", "mlp"):
        sentence = refusal(capsys, protocol, data / "train" / "bag", tmp_path / "out")
        assert "needs labels, and the 20 images of" in sentence
        assert str(data / "train" / "bag") in sentence
    words = ("--validation", str(data / "val" / "hat"))
    sentence = refusal(capsys, "knn", data, tmp_path / "out", *words)
    assert f"k-NN needs labels, and the 10 images of {data / 'val' / 'hat'} have none" in sentence
    parquet(tmp_path / "none" / "train.parquet", [None] * 4 + ["a"] * 3)
    assert "the only one is 'a'" in refusal(capsys, "knn", tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_that_there_is_nothing_to_learn_of(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = image_folder(tmp_path / "others", 8, ("bag", "hut"))
    sentence = refusal(capsys, "mlp", data, tmp_path / "out", "--validation", str(others))
    assert f"{others}: there are images of 'hut', and none to learn from (of 3 classes)" in sentence
    shutil.copytree(data, tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "train" / "shoe")
    sentence = refusal(capsys, "knn", tmp_path / "photos", tmp_path / "out")
    assert f"the split kept beside {tmp_path / 'photos'}: the class 'shoe'" in sentence


def test_too_few_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = image_folder(tmp_path / "few", 8)
    assert "no class of" in refusal(capsys, "logistic", few, tmp_path / "a", "--validation", str(few))
    assert "has 8 images, and to say how sure" in refusal(capsys, "diagnose", few, tmp_path / "b")


def test_models_and_layers_that_are_not(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    sentence = refusal(capsys, "knn", data, out, "--layer", "layer9")
    assert "no layer 'layer9': choose one of act1, layer1, layer2, layer3" in sentence
    for model, why in (("resnet8_moc", "near it are"), ("resnet20_moco_v2", "no weights are published")):
        with pytest.raises(SystemExit, match="2"):
            script("evaluate", ["knn", model, "--data", str(data), "--out", str(out)])
        assert why in capsys.readouterr().err
    assert evaluated("knn", data, out, "--layer", "layer2")["settings"]["layer"] == "layer2"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "evaluate.py: the protocol is missing; the first word is one of diagnose, "),
        (["knnn"], "evaluate.py: 'knnn' is no protocol; the nearest: knn; the first word"),
        (["knn"], "evaluate.py: the MODEL is missing"),
        (["knn", "m", "--out", "o"], "evaluate.py: --data is missing"),
        (["mlp", "m", "--data", "d"], "evaluate.py: --out is missing"),
        (
            ["knn", "m", "--data", "d", "--out", "o", "--kss", "1"],
            "--kss is no option of evaluate.py knn; the nearest",
        ),
        (["knn", "m", "--data", "d", "--out", "o", "--ks", "x"], "--ks is x, but must be any number of values"),
        (["knn", "m", "--data", "d", "--out", "o", "--ks", "0"], "ks is (0,), but must be at least 1 each"),
        (["mlp", "m", "--data", "d", "--out", "o", "--layers", "3"], "--layers is 3, but must be one of 1, 2"),
        (["mlp", "m", "--data", "d", "--out", "o", "--lr", "-1"], "lr is -1.0, but must be above 0"),
        (["logistic", "m", "--data", "d", "--out", "o", "--held_out", "1"], "held_out is 1.0, but must be"),
        (
            ["diagnose", "m", "--data", "d", "--out", "o", "--max_images", "3"],
            "max_images is 3, but must be at least 20",
        ),
        (["knn", "m", "n", "--data", "d", "--out", "o"], "'n' belongs to no option"),
        (["knn", "m", "--data", "d", "--out", "o", "--random", "1"], "--random takes no value"),
        (["knn", "m", "--data", "nowhere", "--out", "o"], "'nowhere' does not exist"),
    ],
)
def test_words_that_say_nothing(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        script("evaluate", words)
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert "\n" not in said


def test_help_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["knn", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            script("evaluate", words)
    assert "temperatures" in capsys.readouterr().out
