"""A checkpoint is whole or it is not there; what is torn is told apart and passed over."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoint
import pytest
import torch
from checkpoint import CheckpointError, load_latest, save
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_state import load_optimizer, optimizer_tensors
from torch import Tensor, nn

TRAINING = Path(checkpoint.__file__).parent


def state(step: int) -> dict[str, dict[str, Tensor]]:
    """A small state that tells which step it is of."""
    return {
        "method": {"weight": torch.full((3, 2), float(step)), "steps": torch.tensor(step)},
        "optimizer": {"momentum_buffer@weight": torch.arange(6.0) + step},
    }


def put(folder: Path, step: int, **more: Any) -> Path:
    return save(folder, step, state(step), {"epoch": step // 10, "best": 0.1 * step}, **more)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def equal(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> bool:
    """Whether the same parts hold the same names with the same bits."""
    same = one.keys() == other.keys() and all(one[part].keys() == other[part].keys() for part in one)
    pairs = ((one[part][name], other[part][name]) for part in one for name in one[part]) if same else ()
    return same and all(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none") is None
    assert put(tmp_path, 7) == tmp_path / "step-00000007"
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 7
    assert equal(loaded.tensors, state(7))
    assert loaded.scalars == {"epoch": 0, "best": 0.1 * 7}
    assert loaded.own == {}
    assert loaded.skipped == ()
    assert loaded.changed() == []


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 4), max_size=4),
    name=st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
)
def test_any_tensor_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, shape: list[int], name: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    save(folder, 0, {"part": {name: tensor}}, {})
    loaded = load_latest(folder)
    assert loaded is not None
    assert equal(loaded.tensors, {"part": {name: tensor}})


def test_views_and_shared_memory_come_back_apart(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(2, 3, 2, 2)
    parts = {
        "whole": whole,
        "same": whole,
        "row": whole[1],
        "transposed": whole.transpose(0, 1),
        "channels_last": whole.clone().to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        "parameter": nn.Parameter(whole),
        "empty": torch.zeros(0, 3),
        "nan": torch.tensor([float("nan"), float("inf")]),
    }
    save(tmp_path, 1, {"part": parts, "nothing": {}}, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.tensors["nothing"] == {}
    assert loaded.tensors["part"].keys() == parts.keys()
    for name, tensor in parts.items():
        assert torch.equal(loaded.tensors["part"][name].nan_to_num(7), tensor.nan_to_num(7)), name
    loaded.tensors["part"]["same"].zero_()
    assert loaded.tensors["part"]["whole"].sum() > 0


def test_what_was_loaded_outlives_its_files(tmp_path: Path) -> None:
    put(tmp_path, 1)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    for file in (tmp_path / "step-00000001").iterdir():
        file.write_bytes(bytes(file.stat().st_size))
    assert equal(loaded.tensors, state(1))


@pytest.mark.parametrize(
    ("keep", "best", "left"), [(1, None, [5]), (2, None, [4, 5]), (2, 1, [1, 4, 5]), (2, 5, [4, 5])]
)
def test_the_last_ones_and_the_best_are_kept(tmp_path: Path, keep: int, best: int | None, left: list[int]) -> None:
    for step in range(1, 6):
        put(tmp_path, step, keep=keep, best=best)
    assert steps(tmp_path) == left
    with pytest.raises(ValueError, match="keep=0"):
        put(tmp_path, 6, keep=0)


def test_torn_ones_do_not_count_as_kept(tmp_path: Path) -> None:
    for step in (10, 20):
        put(tmp_path, step)
    flip(tmp_path / "step-00000020" / "method.safetensors")
    put(tmp_path, 25)
    assert steps(tmp_path) == [10, 25]


def test_a_future_that_was_given_up_goes(tmp_path: Path) -> None:
    for step in (10, 20):
        put(tmp_path, step)
    (tmp_path / "step-00000020" / "MANIFEST.json").unlink()
    put(tmp_path, 15)
    assert steps(tmp_path) == [10, 15]


def test_a_step_saved_whole_is_left_and_a_torn_one_replaced(tmp_path: Path) -> None:
    path = put(tmp_path, 3)
    inode = path.stat().st_ino
    put(tmp_path, 3)
    assert path.stat().st_ino == inode
    flip(path / "method.safetensors")
    put(tmp_path, 3)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert equal(loaded.tensors, state(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000003"]


def test_leftovers_are_ignored_and_cleared(tmp_path: Path) -> None:
    for name in (".tmp-step-00000009", ".tmp-old-step-00000001", "step-x", "step-9"):
        (tmp_path / name).mkdir()
    assert load_latest(tmp_path) is None
    put(tmp_path, 10)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000010", "step-9", "step-x"]


def test_an_old_one_that_cannot_be_deleted_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, keep=1)

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint, "set_aside", denied)
    with pytest.warns(UserWarning, match="could not be deleted"):
        put(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = put(tmp_path, 1, own={"x": torch.ones(1)})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o777 & ~mask
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o666 & ~mask}


def flip(path: Path, at: int = -1) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


FILES = ["method.safetensors", "optimizer.safetensors", "rank-00000.safetensors", "MANIFEST.json"]
DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "flipped in the header": lambda path: flip(path, 20),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "deleted": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir())[1],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_damage_is_seen_and_the_one_before_used(tmp_path: Path, file: str, damage: str) -> None:
    for step in (10, 20):
        put(tmp_path, step, own={"mean": torch.ones(2)})
    DAMAGE[damage](tmp_path / "step-00000020" / file)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 10
    assert equal(loaded.tensors, state(10))
    assert len(loaded.skipped) == 1
    assert loaded.skipped[0].startswith("step-00000020: ")
    DAMAGE[damage](tmp_path / "step-00000010" / file)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints .* is whole .*step-00000020.*step-00000010"):
        load_latest(tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_of_a_manifest_passes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    for step in (1, 2):
        put(folder, step)
    content = bytearray((folder / "step-00000002" / "MANIFEST.json").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "step-00000002" / "MANIFEST.json").write_bytes(content)
    loaded = load_latest(folder)
    assert loaded is not None
    # A bit that changes nothing but white space is harmless; none may change what is read.
    assert (loaded.step == 1 and loaded.skipped) or (loaded.step == 2 and loaded.scalars == {"epoch": 0, "best": 0.2})


def resealed(path: Path, **changes: Any) -> None:
    """Change a manifest, and make its checksum fit, as another version or an attacker would."""
    manifest = json.loads((path / "MANIFEST.json").read_text()) | changes
    manifest["sha256"] = checkpoint.digest(manifest)
    (path / "MANIFEST.json").write_text(json.dumps(manifest))


def test_another_version_is_an_error_and_no_reason_to_go_back(tmp_path: Path) -> None:
    put(tmp_path, 1)
    resealed(put(tmp_path, 2), schema=99)
    with pytest.raises(CheckpointError, match="format 99 and this version reads 1"):
        load_latest(tmp_path)


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, 1)
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    path = put(tmp_path, 2)
    resealed(path, files={"../secret.safetensors": checkpoint.entry(tmp_path / "secret.safetensors")})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    assert "lists a file '../secret.safetensors'" in loaded.skipped[0]


def test_a_renamed_checkpoint_is_not_another_step(tmp_path: Path) -> None:
    put(tmp_path, 2).rename(tmp_path / "step-00000003")
    with pytest.raises(CheckpointError, match="it was saved at step 2"):
        load_latest(tmp_path)


@pytest.mark.parametrize("scalars", [{"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": torch.ones(1)}])
def test_scalars_that_would_come_back_changed_are_refused(tmp_path: Path, scalars: dict[Any, Any]) -> None:
    put(tmp_path, 1)
    with pytest.raises((ValueError, TypeError)):
        save(tmp_path, 2, state(2), scalars)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("part", ["../up", "rank-00000", "", "a b", ".hidden"])
def test_parts_have_plain_names(tmp_path: Path, part: str) -> None:
    with pytest.raises(ValueError, match="cannot name a part"):
        save(tmp_path, 1, {part: {}}, {})


def test_it_says_what_keeps_the_rest_from_being_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, world_size=2)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    changed = loaded.changed(world_size=1)
    assert len(changed) == 2
    assert changed[0].endswith("-> 77")
    assert changed[1] == "world_size 2 -> 1"


# Killed at any moment


class Killed(BaseException):
    """Ends a save as SIGKILL would: nothing of ours catches it."""


class Fuse:
    """Ends the process before the n-th change to the disk."""

    def __init__(self, changes: int) -> None:
        self.left = changes

    def __call__(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return original(*arguments, **named)

        return changed


@pytest.fixture
def lit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Fuse], None]]:
    """Light a fuse under everything through which a save touches the disk."""

    def light(fuse: Fuse) -> None:
        for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, fuse(getattr(os, name)))
        monkeypatch.setattr(builtins, "open", fuse(open))
        monkeypatch.setattr(shutil, "rmtree", fuse(shutil.rmtree))

    yield light
    monkeypatch.undo()


def torn_at(folder: Path, changes: int, lit: Callable[[Fuse], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a save of step 3 over steps 1 and 2 was cut short after so many changes to the disk."""
    lit(Fuse(changes))
    try:
        put(folder, 3, own={"mean": torch.ones(2)})
    except Killed:
        return True
    finally:
        monkeypatch.undo()
    return False


def test_a_save_may_be_killed_anywhere(
    tmp_path: Path, lit: Callable[[Fuse], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for changes in range(200):
        folder = tmp_path / str(changes)
        for step in (1, 2):
            put(folder, step, own={"mean": torch.zeros(2)})
        torn = torn_at(folder, changes, lit, monkeypatch)
        loaded = load_latest(folder)
        assert loaded is not None
        assert loaded.skipped == ()
        assert equal(loaded.tensors, state(loaded.step))
        seen.append(loaded.step)
        put(folder, 4)
        assert steps(folder)[-1] == 4
        assert len(steps(folder)) == 2
        assert not list(folder.glob(".tmp-*"))
        if not torn:
            break
    assert seen == sorted(seen)
    assert {2, 3} == set(seen)
    assert len(seen) > 15


def test_the_only_one_survives_its_own_replacement(
    tmp_path: Path, lit: Callable[[Fuse], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in range(200):
        folder = tmp_path / str(changes)
        put(folder, 2, keep=1)
        torn = torn_at(folder, changes, lit, monkeypatch)
        loaded = load_latest(folder)
        assert loaded is not None
        assert equal(loaded.tensors, state(loaded.step))
        if not torn:
            return
    raise AssertionError("the save never ended")


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from checkpoint import load_latest, save
folder, random_ = Path(sys.argv[1]), random.Random(0)
reached = 0
save(folder, 0, {"part": {"x": torch.zeros(50_000)}}, {"step": 0})
for kill in range(12):
    child = os.fork()
    if child == 0:
        for step in range(reached + 1, 10**6):
            save(folder, step, {"part": {"x": torch.full((50_000,), float(step))}}, {"step": step})
    time.sleep(random_.uniform(0.02, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loaded = load_latest(folder)
    if loaded is None:
        continue
    assert not loaded.skipped, loaded.skipped
    assert loaded.step >= reached
    assert loaded.scalars == {"step": loaded.step}
    assert bool((loaded.tensors["part"]["x"] == loaded.step).all())
    reached = loaded.step
print(reached)
"""


def in_a_process(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """A program run on its own, so that it may fork and be killed."""
    environment = os.environ | {"PYTHONPATH": str(TRAINING), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_sigkill_while_saving_all_the_time(tmp_path: Path) -> None:
    done = in_a_process(KILLS, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.mark.parametrize("at", range(4))
def test_a_full_disk_is_one_sentence_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    put(tmp_path, 1)
    original, written = checkpoint.write_file, []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > at:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(28, "No space left on device", str(path))
        original(path, content)

    monkeypatch.setattr(checkpoint, "write_file", full)
    if at == 3:
        put(tmp_path, 2)
        return
    with pytest.raises(CheckpointError, match=r"step 2 .*No space left.* it needs 0\.0 MB and [\d.]+ MB are free"):
        put(tmp_path, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
    monkeypatch.undo()
    put(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]


# Several processes


class Pair:
    """Two ranks as threads of this process, with the barrier and the broadcast of a process group."""

    def __init__(self) -> None:
        self.meet = threading.Barrier(2, timeout=20)
        self.box: Any = None

    def broadcast(self, value: Any) -> Any:
        if value:
            self.box = value
        self.meet.wait()
        return self.box

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What each rank's work returned or raised."""

        def caught(rank: int) -> Any:
            try:
                return work(rank)
            except (CheckpointError, OSError) as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(caught, range(2)))

    def save(self, folder: Path, step: int, world_size: int = 2) -> list[Any]:
        def work(rank: int) -> Path:
            mine = {"mean": torch.tensor(rank + 10 * step)}
            return put(folder, step, own=mine, rank=rank, world_size=world_size, barrier=self.meet.wait)

        return self.run(work)

    def load(self, folder: Path) -> list[Any]:
        return self.run(lambda rank: load_latest(folder, rank=rank, broadcast=self.broadcast))


def test_ranks_share_a_checkpoint_and_keep_their_own(tmp_path: Path) -> None:
    pair = Pair()
    assert pair.save(tmp_path, 1) == [tmp_path / "step-00000001"] * 2
    first, second = pair.load(tmp_path)
    assert equal(first.tensors, state(1))
    assert equal(second.tensors, state(1))
    assert (first.own["mean"].item(), second.own["mean"].item()) == (10, 11)
    third = load_latest(tmp_path, rank=2, broadcast=lambda _: {"step": 1, "skipped": []})
    assert third is not None
    assert third.own["mean"].item() == 10
    assert third.changed(world_size=3) == ["world_size 2 -> 3"]


@pytest.mark.parametrize("bad", [0, 1])
def test_when_one_rank_cannot_write_both_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    pair, original = Pair(), checkpoint.replace_file
    pair.save(tmp_path, 1)

    def failing(path: Path, content: bytes) -> None:
        if path.name == f"rank-{bad:05d}.safetensors":
            raise OSError(28, "No space left on device")
        original(path, content)

    monkeypatch.setattr(checkpoint, "VISIBLE_WITHIN", 0.3)
    monkeypatch.setattr(checkpoint, "replace_file", failing)
    said = pair.save(tmp_path, 2)
    assert all(isinstance(error, CheckpointError) for error in said)
    assert ["No space left" in str(error) for error in said] == [bad == 0, bad == 1]
    assert "did not appear within 0.3 s" in str(said[1 - bad])
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
    monkeypatch.setattr(checkpoint, "replace_file", original)
    pair.save(tmp_path, 2)
    assert [loaded.own["mean"].item() for loaded in pair.load(tmp_path)] == [20, 21]


def test_rank_0_chooses_for_both(tmp_path: Path) -> None:
    pair = Pair()
    for step in (1, 2):
        pair.save(tmp_path, step)
    flip(tmp_path / "step-00000002" / "rank-00001.safetensors")
    assert [(loaded.step, len(loaded.skipped)) for loaded in pair.load(tmp_path)] == [(1, 1), (1, 1)]
    flip(tmp_path / "step-00000001" / "method.safetensors")
    assert all("none of the 2 checkpoints" in str(error) for error in pair.load(tmp_path))
    assert pair.load(tmp_path / "none") == [None, None]


def test_a_shared_file_system_may_take_its_time(tmp_path: Path) -> None:
    put(tmp_path / "there", 1)
    rename = threading.Timer(0.3, lambda: (tmp_path / "there").rename(tmp_path / "here"))
    rename.start()
    loaded = load_latest(tmp_path / "here", rank=1, broadcast=lambda _: {"step": 1, "skipped": []})
    rename.join()
    assert loaded is not None
    assert equal(loaded.tensors, state(1))


GLOO = """
import os, sys
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
from checkpoint import load_latest, save
folder, meet = Path(sys.argv[1]), sys.argv[2]
child = os.fork()
rank = 1 if child == 0 else 0
limit = timedelta(seconds=30)
dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2, timeout=limit)

def broadcast(value):
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]

shared, own = {"part": {"x": torch.ones(2)}}, {"mean": torch.tensor(rank)}
for step in (1, 2, 3):
    save(folder, step, shared, {}, own=own, rank=rank, world_size=2, barrier=dist.barrier)
loaded = load_latest(folder, rank=rank, broadcast=broadcast)
assert loaded.step == 3 and loaded.own["mean"].item() == rank
dist.barrier()
dist.destroy_process_group()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_two_processes_on_gloo(tmp_path: Path) -> None:
    done = in_a_process(GLOO, tmp_path / "run", tmp_path / "meet")
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "run") == [2, 3]


# Optimisers

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2), nn.Linear(2, 2))
    layers[0].to(memory_format=torch.channels_last)
    layers[3].requires_grad_(False)
    return layers


def learn(layers: nn.Module, optimizer: torch.optim.Optimizer, times: int) -> None:
    for time in range(times):
        optimizer.zero_grad()
        layers(torch.linspace(-1, 1 + time, 96).reshape(2, 3, 4, 4)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 2])
def test_an_optimizer_goes_on_where_it_was(tmp_path: Path, kind: str, before: int) -> None:
    never_stopped = network()
    optimizer = OPTIMIZERS[kind]([*never_stopped.parameters()])
    learn(never_stopped, optimizer, before)
    tensors, scalars = optimizer_tensors(optimizer, never_stopped.named_parameters())
    save(tmp_path, 1, {"method": never_stopped.state_dict(), "optimizer": tensors}, {"optimizer": scalars})
    learn(never_stopped, optimizer, 2)

    resumed = network()
    fresh = OPTIMIZERS[kind]([{"params": [p]} for p in resumed.parameters()])
    loaded = load_latest(tmp_path)
    assert loaded is not None
    resumed.load_state_dict(loaded.tensors["method"])
    load_optimizer(fresh, resumed.named_parameters(), loaded.tensors["optimizer"], loaded.scalars["optimizer"])
    learn(resumed, fresh, 2)
    assert equal({"": dict(resumed.state_dict())}, {"": dict(never_stopped.state_dict())})
    if kind == "sgd":
        buffer = fresh.state[resumed[0].weight]["momentum_buffer"]
        assert buffer.is_contiguous(memory_format=torch.channels_last)


def test_a_missing_or_extra_entry_of_an_optimizer_is_named() -> None:
    layers = network()
    optimizer = OPTIMIZERS["sgd"](layers.parameters())
    learn(layers, optimizer, 1)
    named = list(layers.named_parameters())
    tensors, scalars = optimizer_tensors(optimizer, named)
    missing = {key: value for key, value in tensors.items() if key != "momentum_buffer@0.weight"}
    with pytest.raises(CheckpointError, match=r"missing momentum_buffer@0\.weight \(1\), left over none"):
        load_optimizer(optimizer, named, missing, scalars)
    with pytest.raises(CheckpointError, match=r"missing none \(0\), left over momentum_buffer@odd"):
        load_optimizer(optimizer, named, tensors | {"momentum_buffer@odd": torch.ones(1)}, scalars)
    fewer = {name: has for name, has in scalars.items() if name != "2.bias"}
    with pytest.raises(CheckpointError, match=r"missing 2\.bias \(1\)"):
        load_optimizer(optimizer, named, tensors, fewer)
    with pytest.raises(CheckpointError, match=r"moves 6 parameters and only 5 have a name"):
        optimizer_tensors(optimizer, named[1:])


def test_a_state_that_is_neither_tensor_nor_number_is_refused() -> None:
    layers = nn.Linear(2, 2)
    optimizer = torch.optim.LBFGS(layers.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = layers(torch.ones(1, 2)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(CheckpointError, match="keeps a list as"):
        optimizer_tensors(optimizer, layers.named_parameters())
