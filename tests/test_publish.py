"""Publishing: what the Hub holds afterwards is what the run made, bit for bit, and no secret is told."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import hf_xet
import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from conftest import drawn_image
from evaluations import labelled_images
from hub_state import WRITER, Repository, State
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from published import TERMS, Made, altered_copy, download, evaluate_run, here, make, publishing, refused, snippets
from runs import sha, state
from scripts import script

import ssl_backbones
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.hub.publishing.files import last_part, without_places
from ssl_backbones.methods import method_from_run

NAME = "org/resnet8_moco_v2.photos"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's own client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("Anna Smith"))


def weights(made: Made) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = safetensors.torch.load_file(made.run / "backbone" / "model.safetensors")
    return found


def contents(hub: State, repository: str = NAME) -> dict[str, bytes]:
    """All files of the newest commit but the Hub's own."""
    files = hub.repositories[repository].files
    return {name: content for name, content in files.items() if isinstance(content, bytes) and name != ".gitattributes"}


def test_what_is_there_is_what_the_run_made(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with here() as (_, hub):
        publishing(made.run, "--with_state", "--tag", "v1.0", "--evaluation", str(made.knn), str(made.random))
        said = capsys.readouterr()
        assert "Done: org/resnet8_moco_v2.photos holds what was meant, bit for bit, as v1.0" in said.out
        repository = hub.repositories[NAME]
        assert repository.tags == {"v1.0": repository.head}
        assert not repository.private
        files = contents(hub)
        copy = download(NAME, tmp_path / "copy")
    last = max(path.name for path in (made.run / "checkpoints").iterdir())
    state_files = {f"checkpoints/{last}/{path.name}" for path in (made.run / "checkpoints" / last).iterdir()}
    records = {"recipe.json", "results.json", "evaluations/knn.json", "evaluations/knn_random.json"}
    assert set(files) == {"README.md", "config.json", "model.safetensors"} | records | state_files
    found = safetensors.torch.load(files["model.safetensors"])
    assert sha(found) == sha(weights(made))
    assert all(tensor.is_contiguous() for tensor in found.values())
    config = json.loads(files["config.json"])
    assert (config["architecture"], config["num_classes"]) == ("resnet8", 0)
    assert config["pretrained_cfg"]["license"] == "apache-2.0"
    assert config["pretrained_cfg"]["paper_ids"] == "https://arxiv.org/abs/2003.04297"
    assert "a1_in1k" not in files["config.json"].decode()
    method = {name.removeprefix("method/"): value for name, value in state(made.run).items() if name[:7] == "method/"}
    torch.testing.assert_close(dict(method_from_run(copy).state_dict()), method, rtol=0, atol=0)
    told = b"".join(files.values()) + said.out.encode() + said.err.encode()
    assert WRITER.encode() not in told
    assert b"Anna" not in b"".join(files.values())
    assert b"Smith" not in b"".join(files.values())


@pytest.mark.parametrize("way", ["lfs", "xet"])
def test_large_files_go_either_way(way: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "xet" and Version(huggingface_hub.__version__) < Version("2"):
        pytest.skip("the stand-in for Xet's storage answers as huggingface_hub 2 asks")
    with here() as (_, hub):
        if way == "xet":
            monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
            hub.xet = str(tmp_path)
            publishing(made.run, "--dry_run", "--out", str(tmp_path / "kept"))
            file = tmp_path / "kept" / "model.safetensors"
            hub.xet_hashes[hashlib.sha256(file.read_bytes()).hexdigest()] = hf_xet.hash_files([str(file)])[0].hash
        publishing(made.run)
        model = timm.create_model(f"hf-hub:{NAME}", pretrained=True, cache_dir=tmp_path / "cache")
    assert sha(dict(model.state_dict())) == sha(weights(made))
    asked = {step: hub.asked[step] for step in ("batch", "put", "verify", "xet-write-token")}
    assert asked == (
        {"batch": 1, "put": 1, "verify": 1, "xet-write-token": 0}
        if way == "lfs"
        else {"batch": 0, "put": 0, "verify": 0, "xet-write-token": 1}
    )


def test_what_is_not_for_all_is_not_given_to_all(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with here() as (_, hub):
        publishing(made.run, "--private", repo="org/private")
        publishing(made.run, "--gated", "auto", repo="org/gated")
        assert hub.repositories["org/private"].private
        assert hub.repositories["org/gated"].gated == "auto"
        assert "org/private" in capsys.readouterr().out
        publishing(made.run, repo="org/open")
        assert "is public, and --private was asked for" in refused(capsys, made.run, "--private", repo="org/open")
        monkeypatch.delenv("HF_TOKEN")
        for name in ("private", "gated"):
            with pytest.raises(ssl_backbones.PretrainedWeightsError):
                ssl_backbones.create_model(f"hf-hub:org/{name}", pretrained=True, cache_dir=tmp_path)


def test_nothing_is_overwritten_silently(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = altered_copy(made, tmp_path / "other")
    with here() as (_, hub):
        publishing(made.run)
        before = contents(hub)
        publishing(made.run)  # the same again: found whole, and verified once more
        assert hub.asked["commit"] == hub.asked["tag"] == 1
        assert "holds another model.safetensors: publish under another name" in refused(capsys, other, repo=NAME)
        assert "has a tag" in refused(capsys, other, "--replace", repo=NAME)
        assert contents(hub) == before
        publishing(other, "--replace", "--tag", "v2")
        repository = hub.repositories[NAME]
        assert repository.tags["v2"] == repository.head != repository.tags[f"v{ssl_backbones.__version__}"]
        assert contents(hub)["model.safetensors"] != before["model.safetensors"]
        theirs = hub.repositories["org/theirs"] = Repository()
        theirs.commit({"pytorch_model.bin": b"another's"})
        assert "holds pytorch_model.bin, which this run did not make" in refused(capsys, made.run, repo="org/theirs")
        assert len(theirs.commits) == 1


def test_a_commit_whose_tag_was_lost_is_gone_on_with(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with here() as (_, hub):
        hub.faults["tag"] = 500
        assert "the files are there without their tag" in refused(capsys, made.run, repo=NAME)
        hub.faults.clear()
        publishing(made.run)
        assert hub.asked["commit"] == 1
        assert list(hub.repositories[NAME].tags) == [f"v{ssl_backbones.__version__}"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_a_file_that_comes_back_otherwise_is_not_done(
    name: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    with here() as (_, hub):
        hub.damaged.add(name)
        assert f"{name} came back from org/some.name other than it was sent" in refused(capsys, made.run)


def test_a_dry_run_asks_nothing_of_the_hub(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with here() as (_, hub):
        publishing(made.run, "--dry_run", "--out", str(tmp_path / "kept"))
        assert not hub.asked
        assert "is not empty" in refused(capsys, made.run, "--dry_run", "--out", str(tmp_path / "kept"))
        with pytest.raises(SystemExit):
            script("publish", [str(made.run), "--repo", NAME, *TERMS])
        assert "nobody is there to be asked whether to publish: say --yes" in capsys.readouterr().err
        assert not hub.asked
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "recipe.json",
        "results.json",
    }


def test_half_precision_is_what_was_evaluated(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kept(name: str, *more: str) -> Path:
        script("publish", [str(made.run), "--half", *TERMS, "--out", str(tmp_path / name), *more])
        return tmp_path / name

    first = kept("first")
    found = safetensors.torch.load_file(first / "model.safetensors")
    assert {value.dtype for value in found.values() if value.dim() > 1} == {torch.float16}
    assert {value.dtype for value in found.values() if value.dim() == 1} == {torch.float32}
    for name, value in weights(made).items():
        torch.testing.assert_close(found[name], value.to(found[name].dtype), rtol=0, atol=0)
    evaluate_run(first, labelled_images(tmp_path / "labelled"), tmp_path / "knn")
    second = kept("second", "--evaluation", str(tmp_path / "knn"))
    assert "kept as float16" in (second / "README.md").read_text()
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    monkeypatch.chdir(second)
    drawn_image(1, 40, 30).save("photo.jpg")
    for snippet in snippets((second / "README.md").read_text()):
        exec(snippet, {})
    with pytest.raises(SystemExit):
        kept("no", "--evaluation", str(made.knn))
    assert "is of other weights" in capsys.readouterr().err


def test_the_snippets_of_the_card_run(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    drawn_image(1, 40, 30).save("photo.jpg")
    with here() as (_, hub):
        publishing(made.run)
        code = snippets(contents(hub)["README.md"].decode())
        assert len(code) == 3
        spaces: list[dict[str, object]] = [{}, {}, {}]
        for snippet, space in zip(code, spaces, strict=True):
            exec(snippet, space)
    embedding, model = spaces[1]["embedding"], spaces[0]["model"]
    assert isinstance(embedding, torch.Tensor)
    assert isinstance(model, torch.nn.Module)
    assert embedding.shape == (1, 64)
    assert sha(dict(model.state_dict())) == sha(weights(made))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/mnt/photos", "photos"),
        ("~/photos", "photos"),
        ("../photos/train", "train"),
        ("imagenette_96/train", "imagenette_96/train"),
        ("https://arxiv.org/abs/2003.04297", "https://arxiv.org/abs/2003.04297"),
        ("knn.py /a/run --data=/b/c --out '/d/e f' -k 3", "knn.py run --data=c --out 'e f' -k 3"),
        ("Table 3 (a)/(b), 1 / 2", "Table 3 (a)/(b), 1 / 2"),
        ("about ~5 % of it, see docs/own_rules.md", "about ~5 % of it, see docs/own_rules.md"),
        ("the weights of /a b/c d lie in '/e f/g h' and ../i", "the weights of c d lie in 'g h' and i"),
        ("local-dir:/a b/run", "local-dir:run"),
    ],
)
def test_where_things_lay_is_nobodys_business(text: str, told: str) -> None:
    assert last_part(text) == told


PART = st.text("abc .'-\u00e9", min_size=1, max_size=8).map(lambda name: f"x{name}x")


@settings(max_examples=100, deadline=None)
@given(
    start=st.sampled_from(["/", "~/", "~anna/", "../", "./", "file:///", "C:\\", "D:/", "\\\\", "local-dir:/"]),
    parents=st.lists(PART.map(lambda name: f"{name}HIDDEN"), min_size=1, max_size=3),
    last=PART,
)
def test_no_part_of_a_path_is_published_but_its_last(start: str, parents: list[str], last: str) -> None:
    """A path is all of a text, a word of a command, or what an option of one is set to."""
    path = start + ("\\" if "\\" in start else "/").join([*parents, last])
    command = shlex.join(["/opt/HIDDEN/ssl-backbones", "embed", path, "--data", path, f"--out={path}"])
    found = without_places({"data": {"source": path}, "many": [path], "command": command})
    name = f"local-dir:{last}" if start.startswith("local") else last
    assert found["data"]["source"] == found["many"][0] == name
    assert shlex.split(found["command"]) == ["ssl-backbones", "embed", name, "--data", name, f"--out={name}"]


LOAD = """
import sys
sys.modules["ssl_backbones"] = None
import safetensors.torch, timm
model = timm.create_model(f"hf-hub:{sys.argv[1]}", pretrained=True)
safetensors.torch.save_file({name: value.contiguous() for name, value in model.state_dict().items()}, sys.argv[2])
"""


@pytest.mark.slow
def test_plain_timm_loads_it_with_and_without_this_package(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it in a process of its own, with the real environment."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    large = Path(shutil.copytree(made.run, tmp_path / "large"))
    recipe = json.loads((large / "recipe.json").read_text())
    (large / "recipe.json").write_text(json.dumps(recipe | {"model": "resnet18_moco_v2"}))
    torch.manual_seed(0)
    save_backbone(timm.create_model("resnet18", num_classes=0), large / "backbone", "resnet18")
    with here() as (address, _):
        publishing(large, repo="org/resnet18")
        plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        plain |= {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        reader = plain | {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
        file = tmp_path / "without.safetensors"
        subprocess.run([sys.executable, "-c", LOAD, "org/resnet18", str(file)], env=reader, check=True)
        loaded = timm.create_model("hf-hub:org/resnet18", pretrained=True).state_dict()
    made_by_the_run = sha(safetensors.torch.load_file(large / "backbone" / "model.safetensors"))
    assert sha(safetensors.torch.load_file(file)) == sha(dict(loaded)) == made_by_the_run
