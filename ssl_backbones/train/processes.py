"""The processes of a run: starting, agreeing and stopping together."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from collections.abc import Callable
from types import FrameType

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin, LoggerType, parse_flag_from_env

from ssl_backbones import distributed
from ssl_backbones.cores import threads_here, threads_spin
from ssl_backbones.devices import gpu_excluded
from ssl_backbones.distributed import first_decides, say, silent, world_size
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.run_folder import as_recorded
from ssl_backbones.runs.trackers import PROJECT, mentioned, name_and_id, run_id, settings
from ssl_backbones.train.allocator import keep_freed_memory
from ssl_backbones.train.host_group import device_here, host_group, make_host_group, meeting
from ssl_backbones.train.precision import Precision

STOPPING = {signal.SIGTERM: 143, signal.SIGINT: 130}
if hasattr(signal, "SIGUSR1"):
    STOPPING[signal.SIGUSR1] = 143
"""Signals that ask for an orderly end, and the exit code each leads to."""
FAILED = 1
"""The code, below those of signals, of a process in which something failed beside the steps."""
ECHO = 3.0
"""Seconds after a signal in which another is taken for the same."""
SPINNING = (
    "The threads of this process spin while they wait, as torch was imported before OMP_WAIT_POLICY was set, which "
    "slows the run where other programs use the cores: run the command in a process of its own, or set "
    "OMP_WAIT_POLICY=PASSIVE before Python starts."
)
"""The sentence of a process that others began, such as a notebook's."""
LAUNCHED = "ACCELERATE_DYNAMO_BACKEND"
"""Set by Accelerate's launcher for the process that it starts."""
TAKING_OVER = tuple(f"ACCELERATE_USE_{what}" for what in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG"))
"""Set by Accelerate's launcher, by its configuration, for other ways to share out a network than this package's."""


Asked = tuple[dist.Work, torch.Tensor]
"""A question to all processes that is on its way, and where its answer arrives."""


class TrackerError(Refusal, ValueError):
    """A tracker that is not to be had here."""


class LauncherError(Refusal, RuntimeError):
    """A configuration of Accelerate's launcher that cannot be followed here."""


def check_launcher() -> None:
    """LauncherError where Accelerate's launcher was configured to share out, or to compile, the network otherwise."""
    asked = [flag for flag in TAKING_OVER if parse_flag_from_env(flag)]
    asked += [LAUNCHED] if os.environ.get(LAUNCHED, "").lower() not in ("", "no") else []
    if asked:
        raise LauncherError(
            f"{asked[0]} is {os.environ[asked[0]]!r}, but a run shares out its batch by itself and is compiled by "
            "--compile alone: unset it, or launch by torchrun or accelerate launch --config_file FILE, whose file is "
            "without it"
        )


def meet() -> torch.device:
    """Meet the other processes of the run, if there are any; the device of this one, with its threads set.

    Accelerate hears of ACCELERATE_USE_CPU too late, and on a machine without an accelerator takes each for alone.
    """
    check_launcher()
    cpu = gpu_excluded() or not torch.accelerator.is_available()
    torch.set_num_threads(threads_here())
    keep_freed_memory()
    with meeting():
        device: torch.device = PartialState(cpu=cpu, timeout=distributed.PATIENCE).device
    if world_size() > 1:
        make_host_group(device)
    if silent():  # warnings are told once
        logging.getLogger("ssl_backbones").setLevel(logging.ERROR)
    if device.type == "cpu" and threads_spin():
        say(SPINNING)
    return device


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse a tracker that Accelerate does not know, or whose package is missing: it would be left out in silence."""
    here = sorted(str(tracker) for tracker in get_available_trackers())
    for name in names:
        if name != "all" and name not in here:
            why = "its package is not installed" if name in LoggerType.list() else "Accelerate knows no such tracker"
            raise TrackerError(f"{name!r} cannot track the run ({why}); ready here: {', '.join(here) or 'none'}")


def accelerator_of(precision: Precision, trackers: tuple[str, ...], folder: str) -> Accelerator:
    """Accelerate for devices, processes and precision, whatever the precision of a run before this one.

    Buffers stay each process's own: methods keep them alike.
    """
    AcceleratorState._reset_state(reset_partial_state=False)
    # Its successor, forward_sync_buffers, is younger than the oldest torch this runs with.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(trackers) or None,
        project_dir=folder,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # or the launcher's would scale the loss
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )


def start_trackers(accelerator: Accelerator, run: Run, anew: bool, tell: Callable[[str], None]) -> None:
    """Start the trackers of a run that begins `anew` or goes on, and tell them its settings.

    Where one fails, that is told, and the run has none; where one takes no settings, it goes without.
    """
    with mentioned(tell):
        known_as = name_and_id(run.folder.resolve().name, first_decides(lambda: run_id(run.folder, anew)))
        accelerator.init_trackers(PROJECT, init_kwargs=known_as)
        for tracker in accelerator.trackers:
            with mentioned(tell):
                tracker.store_init_configuration(settings(as_recorded(run.to_dict())))
        return
    accelerator.trackers = []


class StopSignals:
    """Notes the signals that ask for an end, so that all processes end after the same step with their state saved.

    A second signal ends the process at once, unless it is the echo of the first: a launcher sends its processes what
    the terminal has sent them already.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.received_at = 0.0
        self.parent = os.getppid()
        self.together = world_size() > 1
        # On a device the answer would have to be waited for at every step, with all the work queued before it.
        self.group = host_group() if self.together else None
        self.asked: Asked | None = None
        self.before = {number: signal.signal(number, self.note) for number in STOPPING}

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal; one that comes later than an echo ends the process."""
        now = time.monotonic()
        if self.received is None:
            self.received, self.received_at = number, now
        elif now - self.received_at > ECHO:
            self.restore()
            signal.raise_signal(number)

    @property
    def code(self) -> int:
        """The exit code of the signal that this process has received; 0 for none."""
        return STOPPING[signal.Signals(self.received)] if self.received is not None else 0

    def agreed(self, failed: bool = False) -> int | None:
        """The exit code with which all processes end now, or None. All of them ask after every step.

        It is 1 where no signal was received and one process says that something of its own `failed`.

        Several hear of a signal a step later: each reads the answer to what all asked at the step before, and nobody
        waits for the others.
        """
        if not self.together:
            return self.agreed_at_once() or (FAILED if failed else None)
        before, self.asked = self.asked, self.ask(failed)
        if before is None or (code := answer(before)) is None:
            return None
        answer(self.asked)  # or it would be on its way while the group ends
        return code

    def agreed_at_once(self) -> int | None:
        """The exit code with which all processes end now, or None, for work of few and long steps."""
        if self.together:
            return answer(self.ask())
        if self.code == STOPPING[signal.SIGINT] and LAUNCHED in os.environ:
            self.outlive_launcher()
        return self.code or None

    def ask(self, failed: bool = False) -> Asked:
        """Begin to find the highest of all processes' codes."""
        highest = torch.tensor(self.code or FAILED * failed, device="cpu" if self.group is not None else device_here())
        work = dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.group, async_op=True)
        assert work is not None
        return work, highest

    def outlive_launcher(self) -> None:
        """Wait until a launcher that Ctrl-C ends has told of it, so that the last words are ours."""
        while os.getppid() == self.parent and time.monotonic() < self.received_at + ECHO:
            time.sleep(0.02)

    def restore(self) -> None:
        """Put back what the signals did before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


def answer(asked: Asked) -> int | None:
    """The code that all processes have agreed upon, or None."""
    work, highest = asked
    work.wait()
    return int(highest) or None


class Stopped(SystemExit):
    """An orderly end before the last step, with everything saved."""
