"""Interrupt small runs in every way, and start them again: python tests/interrupt_and_resume.py [--portion 6]

Six kinds of signal, with eleven trials of each: SIGKILL; SIGTERM and soon another; Ctrl-C, which reaches the workers as
well; SIGSTOP, after which the run goes on or is killed; SIGKILL to a reading worker alone; and SIGKILL, SIGTERM or
Ctrl-C to either of two ranks or both. A trial is one run that gets three of its kind and is started again by the same
command until it ends; what it leaves must equal, bit for bit, what the run leaves undisturbed. Methods take turns, the
moments come from a generator with a seed. Every outcome is written down when it is there, and no trial is repeated.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kill_and_resume  # before torch: it sets the number of threads
import torch
from killing import Attempt, last_line
from runs import image_folder
from small_methods import CONFIGS

from ssl_backbones.files import write_json
from ssl_backbones.runs import checkpoint

KINDS = ("SIGKILL", "SIGTERM twice", "Ctrl-C", "SIGSTOP", "a worker alone", "two ranks")
TRIALS = 11
"""Runs of each kind."""
SIGNALS = 3
"""Times that a run is interrupted."""
MOMENTS = ("starting", "between steps", "writing", "measuring", "epoch's edge", "any time")
PATIENCE = 60.0
"""Seconds within which a run must have ended after a signal that ends it."""


@dataclass(frozen=True)
class Trial:
    """One run that is interrupted by one kind of signal."""

    kind: str
    number: int
    method: str

    @property
    def processes(self) -> int:
        return 2 if self.kind == "two ranks" else 1

    @property
    def workers(self) -> int:
        """Reading processes: where one is to be killed, and in every other trial."""
        return 2 if self.kind == "a worker alone" or self.number % 2 else 0


def all_trials() -> list[Trial]:
    """Every trial, with the methods in turn; those that are compared with one undisturbed run come together."""
    names = [kind.name for kind in CONFIGS]
    trials = [
        Trial(kind, number, names[(at * TRIALS + number) % len(names)])
        for at, kind in enumerate(KINDS)
        for number in range(TRIALS)
    ]
    return sorted(trials, key=lambda trial: (trial.processes, trial.method))


def interrupt(attempt: Attempt, kind: str, generator: random.Random) -> dict[str, Any] | None:
    """Send what the kind asks for; a record of it, or None where there was nothing left to send it to."""
    if kind == "a worker alone":
        return to_a_worker(attempt, generator)
    if kind == "SIGSTOP":
        return stop_for_a_while(attempt, generator)
    if kind == "two ranks":
        ranks = generator.choice([[0], [1], [0, 1]])
        number = generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        attempt.send(number, ranks)
        return {"sent": signal.Signals(number).name, "ranks": ranks}
    if kind == "SIGTERM twice":
        attempt.send(signal.SIGTERM)
        after = generator.choice([0.0, 0.01, 0.1, 0.5])
        time.sleep(after)
        attempt.send(signal.SIGTERM)
        return {"sent": "SIGTERM, SIGTERM", "apart_s": after}
    if kind == "Ctrl-C":
        attempt.send_to_group(signal.SIGINT)
        return {"sent": "SIGINT to the group"}
    attempt.send(signal.SIGKILL)
    return {"sent": "SIGKILL"}


def to_a_worker(attempt: Attempt, generator: random.Random) -> dict[str, Any] | None:
    """Kill one of the reading workers, once there are some."""
    while attempt.running():
        if workers := attempt.workers():
            os.kill(generator.choice(workers), signal.SIGKILL)
            return {"sent": "SIGKILL to a worker"}
        time.sleep(0.001)
    return None


def stop_for_a_while(attempt: Attempt, generator: random.Random) -> dict[str, Any]:
    """Halt the run, and after a moment let it go on, or kill it as it stands."""
    attempt.send(signal.SIGSTOP)
    halted = generator.uniform(0.1, 1.0)
    time.sleep(halted)
    then = generator.choice([signal.SIGCONT, signal.SIGKILL])
    attempt.send(then)
    return {"sent": f"SIGSTOP, {signal.Signals(then).name}", "halted_s": round(halted, 2)}


def goes_on(sent: dict[str, Any]) -> bool:
    """True if a run is as alive as before."""
    return bool(sent["sent"].endswith("SIGCONT"))


def interrupted_run(trial: Trial, out: Path, data: Path, seed: int, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """A run interrupted as often as it is long enough for: what was sent, and what went wrong, if anything."""
    kind = next(config for config in CONFIGS if config.name == trial.method)
    recipe = kill_and_resume.recipe_of(kind, data, out, trial.workers)
    generator = random.Random(f"{seed} {trial}")
    sent: list[dict[str, Any]] = []
    attempt = Attempt(recipe, trial.processes)
    while True:
        moment = generator.choice(MOMENTS) if len(sent) < SIGNALS else None
        came = moment is not None and attempt.wait_for(moment, generator, seconds)
        one = interrupt(attempt, trial.kind, generator) if came else None
        if one is not None:
            sent.append({"at": moment, **one})
            if goes_on(one):
                attempt.log_before = last_line(out)
                continue
        if not (attempt.join_within(PATIENCE) if one else attempt.join_within(10 * PATIENCE)):
            return sent, f"it did not end within its time: {attempt.said()}"
        if one:
            sent[-1]["codes"] = sorted(attempt.codes())
        if attempt.codes() == {0}:
            return sent, ""
        if one is None:
            return sent, f"it ended with {attempt.codes()} by itself: {attempt.said()}"
        attempt = Attempt(recipe, trial.processes)


def record_of(trial: Trial, data: Path, seed: int, reference: tuple[dict[str, str], float]) -> dict[str, Any]:
    """The record of a trial that was made now."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="interrupted-") as folder:
        sent, wrong = interrupted_run(trial, Path(folder) / "run", data, seed, reference[1])
        differ = (
            [] if wrong else kill_and_resume.differences(kill_and_resume.outcome(Path(folder) / "run"), reference[0])
        )
    return {
        "kind": trial.kind,
        "number": trial.number,
        "method": trial.method,
        "workers": trial.workers,
        "processes": trial.processes,
        "identical": not wrong and not differ,
        "wrong": wrong or (f"differs in {', '.join(differ)}" if differ else ""),
        "sent": sent,
        "seconds": round(time.monotonic() - began, 1),
        "made_with": checkpoint.surroundings(1) | {"platform": platform.platform(terse=True)},
    }


def summary(trials: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """All trials, and what they come to."""
    signals: collections.Counter[str] = collections.Counter()
    for one in trials:
        for sent in one["sent"]:
            signals.update(sent["sent"].split(", "))
    return {
        "seed": seed,
        "trials": len(trials),
        "identical": sum(one["identical"] for one in trials),
        "signals": sum(signals.values()),
        "by_kind": {
            kind: f"{sum(one['identical'] for one in trials if one['kind'] == kind)} of "
            f"{sum(one['kind'] == kind for one in trials)}"
            for kind in KINDS
        },
        "by_signal": dict(signals.most_common()),
        "by_method": dict(sorted(collections.Counter(one["method"] for one in trials).items())),
        "seconds": round(sum(one["seconds"] for one in trials), 1),
        "each": trials,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portion", type=int, default=len(KINDS) * TRIALS, help="trials to make now, at most (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--out", type=Path, default=kill_and_resume.RESULTS, help="the file to write, and to go on with"
    )
    return parser.parse_args()


def main() -> None:
    """Make the trials that are not written down, write each down when it is done, and print how many were identical."""
    given = arguments()
    written = json.loads(given.out.read_text()) if given.out.exists() else {}
    before = written.get("interrupted", {"seed": given.seed, "each": []})
    done = before["each"] if before["seed"] == given.seed else []
    made = {(one["kind"], one["number"]) for one in done}
    references: dict[tuple[str, int], tuple[dict[str, str], float]] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="interrupted-") as folder:
        data = image_folder(Path(folder) / "images", kill_and_resume.IMAGES)
        left = [trial for trial in all_trials() if (trial.kind, trial.number) not in made]
        for trial in left[: given.portion]:
            key = (trial.method, trial.processes)
            if key not in references:
                kind = next(config for config in CONFIGS if config.name == trial.method)
                out = Path(folder) / "-".join(map(str, key))
                references[key] = kill_and_resume.undisturbed(kind, trial.processes, data, out)
            one = record_of(trial, data, given.seed, references[key])
            done = [*done, one]
            write_json(given.out, written | {"interrupted": summary(done, given.seed)})
            print(f"{trial}: {'identical' if one['identical'] else one['wrong']}, {one['seconds']} s", flush=True)
    total = summary(done, given.seed)
    print(f"identical {total['identical']}/{total['trials']}, {total['signals']} signals")
    raise SystemExit(total["identical"] != total["trials"])


if __name__ == "__main__":
    main()
