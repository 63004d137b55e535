"""Cards and weights enter the repository by the recipe's name, after all else is done, or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from published import NAMED, TERMS, Made, here, make, publishing, refused
from scripts import script

from ssl_backbones.catalogue.lookup import describe
from ssl_backbones.commands import publish
from ssl_backbones.hub.publishing import shipping
from ssl_backbones.registry import image_sets
from ssl_backbones.registry.image_sets import IMAGENETTE

NAME = "resnet8_moco_v2.imagenette32_60ep"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's own client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("entering"))


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A run by the name of a recipe whose weights ship."""
    copied = Path(shutil.copytree(made.run, tmp_path / "run"))
    recipe = json.loads((copied / "recipe.json").read_text())
    (copied / "recipe.json").write_text(json.dumps(recipe | {"name": NAME}))
    return copied


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty copy of the repository, in which weights need not be worth anything."""
    root = tmp_path / "repository"
    (root / "model_cards").mkdir(parents=True)
    monkeypatch.setattr(publish, "ROOT", root)
    monkeypatch.setattr(publish, "WEIGHTS", root / "ssl_backbones" / "_weights")
    (root / "ssl_backbones").mkdir()
    monkeypatch.setattr(shipping, "check_worth", lambda evaluations: None)
    return root


def written(root: Path) -> set[str]:
    """Every file that was put into the repository."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def records(*more: str) -> set[str]:
    """The entry of a run without evaluations."""
    names = ("config", "recipe", "results")
    return {f"model_cards/{NAME}.md", *(f"benchmarks/results/{NAME}/{name}.json" for name in names), *more}


def known(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the images of a run be those that its name says."""
    about = json.loads((run / "results.json").read_text())["data"]
    monkeypatch.setattr(image_sets, "DATA", (replace(IMAGENETTE, fingerprints=(about["fingerprint"],)),))


@pytest.mark.parametrize("what", ["--enter", "--ship"])
def test_a_dry_run_writes_nothing(what: str, run: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(run, monkeypatch)
    script("publish", [str(run), what, "--dry_run"])
    with here() as (_, hub):
        publishing(run, what, "--dry_run")
        assert not hub.asked
    assert written(root) == set()


def test_what_ships_is_entered_with_it(run: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(run, monkeypatch)
    script("publish", [str(run), "--ship"])
    assert written(root) == records(f"ssl_backbones/_weights/{NAME}.safetensors")
    card = (root / "model_cards" / f"{NAME}.md").read_text()
    assert all((root / path).is_file() for path in NAMED.findall(card))
    assert len(NAMED.findall(card)) == 3
    assert f'create_model("{NAME}", pretrained=True)' in card
    assert f"Of the images, which are {describe(NAME).data}: {describe(NAME).data_terms}." in card


@pytest.mark.parametrize("ships", [False, True])
def test_both_cards_are_true_where_they_lie(
    ships: bool, run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(run, monkeypatch)
    with here() as (_, hub):
        publishing(run, "--ship" if ships else "--enter", repo="org/another.name")
        files = dict(hub.repositories["org/another.name"].files)
    weights = {f"ssl_backbones/_weights/{NAME}.safetensors"} if ships else set()
    assert written(root) == records(*weights)
    there, entered = files["README.md"].decode(), (root / "model_cards" / f"{NAME}.md").read_text()
    assert {"config.json", "model.safetensors", "recipe.json"} == set(NAMED.findall(there))
    assert set(NAMED.findall(there)) <= set(files)
    assert all((root / path).is_file() for path in NAMED.findall(entered))
    assert ('create_model("hf-hub:org/another.name", pretrained=True)' in entered) == (not ships)
    assert 'create_model("hf-hub:org/another.name", pretrained=True)' in there
    for card in (there, entered):
        assert card.count("are not published") == 1


def test_the_state_of_training_is_said_to_lie_where_it_is(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(run, monkeypatch)
    script("publish", [str(run), "--enter", "--with_state"])
    card = root / "model_cards" / f"{NAME}.md"
    assert "Such parts and the optimiser's state are not published." in card.read_text()
    with here() as (_, hub):
        publishing(run, "--enter", "--with_state", repo="org/name")
        there = hub.repositories["org/name"].files["README.md"].decode()
    assert "The whole state of training lies beside it," in there
    assert "The whole state of training lies in org/name on the Hub," in card.read_text()
    assert written(root) == records()


@pytest.mark.parametrize("fault", ["commit", "tag", "whoami"])
def test_what_could_not_be_published_is_not_entered(
    fault: str, run: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known(run, monkeypatch)
    with here() as (_, hub):
        hub.faults[fault] = 403
        assert "failed" in refused(capsys, run, "--ship")
    assert written(root) == set()


def test_what_was_not_agreed_to_is_not_entered(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known(run, monkeypatch)
    with here() as (_, hub):
        with pytest.raises(SystemExit):
            script("publish", [str(run), "--repo", "org/name", "--ship", *TERMS])
        assert "nobody is there to be asked" in capsys.readouterr().err
        assert not hub.asked
    assert written(root) == set()


def test_what_may_not_ship_is_neither_published_nor_entered(
    made: Made, run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with here() as (_, hub):
        kept = ("--out", str(tmp_path / "kept"))
        assert "is no registered name" in refused(capsys, made.run, "--ship", *kept)
        assert "the images are not known to be those" in refused(capsys, run, "--ship", *kept)
        shutil.rmtree(root / "model_cards")
        assert "has no model_cards to enter a card into" in refused(capsys, made.run, "--enter")
        assert not hub.asked
    assert written(root) == set()
    assert not (tmp_path / "kept").exists()


def test_a_registered_name_says_nothing_of_whose_the_images_are(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script("publish", [str(run), "--enter"])
    assert "so their terms are not known: say what their owners allow" in capsys.readouterr().err
    assert written(root) == set()
    script("publish", [str(run), "--enter", *TERMS])
    assert "Of the images (photos): CC0." in (root / "model_cards" / f"{NAME}.md").read_text()
