"""Publishing on a bad day: one sentence with a way out, nothing half published, no token told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import safetensors.torch
from hub_state import READER, STRANGER, WRITER
from huggingface_hub import constants
from huggingface_hub.utils import _http
from published import Made, altered_copy, evaluate_run, here, make, point_at, publishing, refused
from scripts import script
from test_given import START

from ssl_backbones.typed.values import to_plain

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's own client
BEFORE = ("whoami", "info", "create", "preupload", "batch", "put", "verify", "commit")
"""Steps whose failure leaves no file behind."""
STEPS = (*BEFORE, "tag", "resolve")
OFTEN = ("whoami", "create", "preupload", "commit", "resolve")
"""Those that are tried with every fault."""
LAST = ("commit", "resolve")
"""Those that are tried with every fault in the fast tests too."""
WAYS_OUT = {
    401: "log in with `hf auth login`, or set HF_TOKEN",
    403: "take one with the right to write there, or publish under another name with --repo",
    404: "check --repo and HF_ENDPOINT",
    429: "wait some minutes and run the same command again",
    500: "run the same command again later, or name another with HF_ENDPOINT",
    "half": "check the network and HF_ENDPOINT, and run the same command again",
    "cut": "check the network and HF_ENDPOINT, and run the same command again",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("refusals"))


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        *((step, "cut") for step in STEPS),
        *(
            pytest.param(step, fault, marks=() if step in LAST else pytest.mark.slow)
            for step, fault in [*((step, 500) for step in STEPS), *product(OFTEN, (401, 403, 404, 429))]
        ),
        ("resolve", "half"),
    ],
)
def test_a_step_that_fails_ends_in_a_sentence(
    step: str, fault: int | str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    with here() as (_, hub):
        hub.faults[step] = fault
        said = refused(capsys, made.run)
        assert max([0, *hub.waited.values()]) < 30
        assert hub.asked[step] <= 42  # six files at once, each tried seven times
        repository = hub.repositories.get("org/some.name")
        if step in BEFORE:
            assert repository is None or set(repository.files) == {".gitattributes"}
            assert "nothing was published" in said or "published whole or not at all" in said
        if fault in (500, "cut"):  # and the same command goes on from there
            hub.faults.clear()
            publishing(made.run, repo="org/some.name")
    assert WAYS_OUT[fault] in said
    assert WRITER not in said


MODES = ((), ("--dry_run",), ("--dry_run", "--out", "files"), ("--with_state",), ("--private", "--replace"))
TAGS = (
    "../../x",
    "",
    ".",
    "..",
    "a/b",
    "-x",
    "v1 0",
    "v1\n",
    "v1:2",
    "refs/heads/main",
    "main",
    "x.lock",
    "0" * 40,
    "é",
)


@pytest.mark.parametrize("mode", MODES)
def test_no_bad_tag_gets_beyond_the_first_check(
    mode: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with here() as (_, hub):
        for tag in TAGS:
            said = refused(capsys, tmp_path / "no run", f"--tag={tag}", *mode)  # which would be told next
            assert "that is no name of a tag" in said, tag
        assert not hub.asked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "there is no access token, so nothing can be published: log in with `hf auth login`"),
        (STRANGER, "the Hub does not know the access token; log in with `hf auth login`"),
        (READER, "the access token may not do that; take one with the right to write there"),
    ],
)
def test_a_token_that_will_not_do(
    token: str | None, reason: str, made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    with here(token) as (_, hub):
        said = refused(capsys, made.run)
        assert not hub.repositories
    assert reason in said
    assert token is None or token not in said


def test_offline(made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so nothing can be published: unset it, or keep the files with --out" in refused(
        capsys, made.run
    )


@pytest.mark.parametrize("name", ["name-alone", "org/two words", "org/name/more", "org/..", "https://hub/org/name"])
def test_a_name_that_no_repository_can_have(name: str, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert "write it as --repo org/name" in refused(capsys, made.run, repo=name)


def test_without_a_network_there_is_one_error_and_little_waiting(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens on the port; the pauses between tries are counted only."""
    waited: list[float] = []
    point_at("http://127.0.0.1:9", monkeypatch, WRITER)
    monkeypatch.setattr(_http.time, "sleep", waited.append)
    said = refused(capsys, made.run)
    assert sum(waited) < 30
    assert WAYS_OUT["cut"] in said
    assert "nothing was published" in said
    assert WRITER not in said


class TestMaterial:
    def said(self, capsys: pytest.CaptureFixture[str], run: Path, *words: str) -> str:
        """The sentence that a folder is refused with, before the Hub is asked anything."""
        with here() as (_, hub):
            sentence = refused(capsys, run, *words)
            assert not hub.asked
        return sentence

    @pytest.fixture
    def copied(self, made: Made, tmp_path: Path) -> Path:
        return Path(shutil.copytree(made.run, tmp_path / "run"))

    def test_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "is no run's folder, it holds no recipe.json" in self.said(capsys, tmp_path)

    def test_a_run_that_is_not_finished(self, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (copied / "results.json").unlink()
        assert "is not finished, it holds no results.json: end it with its own command" in self.said(capsys, copied)

    @pytest.mark.parametrize("content", ["{", "[]", "{}"])
    def test_records_that_are_damaged(self, content: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (copied / "results.json").write_text(content)
        assert str(copied) in self.said(capsys, copied)

    def test_weights_that_are_not_finite(self, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = copied / "backbone" / "model.safetensors"
        weights = safetensors.torch.load_file(file)
        weights["conv1.weight"][0] = float("nan")
        safetensors.torch.save_file(weights, file)
        assert "they hold numbers that are not finite in conv1.weight" in self.said(capsys, copied)

    def test_weights_that_are_cut_short(self, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = copied / "backbone" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        assert "the file is damaged" in self.said(capsys, copied)

    def test_an_evaluation_of_other_weights(
        self, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = altered_copy(made, tmp_path / "other")
        evaluate_run(other, made.run.parent / "labelled", tmp_path / "knn")
        assert "is of other weights" in self.said(capsys, made.run, "--evaluation", str(tmp_path / "knn"))
        assert "holds no evaluation" in self.said(capsys, made.run, "--evaluation", str(made.run))

    def test_a_training_state_that_is_damaged(self, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for checkpoint in (copied / "checkpoints").iterdir():
            file = checkpoint / "method.safetensors"
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        assert "is whole (step-" in self.said(capsys, copied, "--with_state")
        shutil.rmtree(copied / "checkpoints")
        assert "(it holds no checkpoint): leave --with_state out" in self.said(capsys, copied, "--with_state")

    def test_a_token_among_the_records(self, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recipe = json.loads((copied / "recipe.json").read_text())
        (copied / "recipe.json").write_text(json.dumps(recipe | {"validation": STRANGER}))
        said = self.said(capsys, copied)
        assert "recipe.json would hold what looks like an access token" in said
        assert STRANGER not in said

    def test_images_of_which_nobody_says_the_terms(self, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            script("publish", [str(made.run), "--repo", "org/name", "--yes"])
        assert "so their terms are not known: say what their owners allow" in capsys.readouterr().err

    def test_a_start_of_which_nobody_knows_the_licence(self, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
        results = json.loads((copied / "results.json").read_text())
        results["start"] = to_plain(replace(START, licence=None, name="theirs"))
        (copied / "results.json").write_text(json.dumps(results))
        assert "the licence of theirs, of which the weights were made, is not known" in self.said(capsys, copied)

    def test_nothing_to_do(self, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            script("publish", [str(made.run)])
        assert (
            "name a repository with --repo org/name, or a new folder for the files with --out"
            in capsys.readouterr().err
        )
