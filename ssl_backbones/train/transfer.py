"""What a backbone is worth after more training: a task with labels, run by the loop that pretrains."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_backbones.data import Images
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.conduct import conduct
from ssl_backbones.train.judge import Judge, SaveResults
from ssl_backbones.train.start import check_order, fitting, meet_for, prepare


@dataclass(frozen=True, kw_only=True)
class Transfer(Run):
    """A run that trains a task on top of a backbone."""

    protocol: str
    """What the evaluation is called."""
    model: str
    """A registered name, hf-hub:org/name, or the folder of a run."""
    weights_sha256: str
    """Of the backbone before training, so that a run does not go on with another."""
    task: MethodConfig

    @property
    def title(self) -> str:
        return f"{self.protocol} of {self.model}"


def carry_out(transfer: Transfer, method: Method, images: Images, judge: Judge, save_results: SaveResults) -> RunFolder:
    """Train a task from where it was left, save the results and return the folder.

    In every process, `judge` measures the network at the end and as often as it says; `save_results` runs in the first.
    """
    device = meet_for(transfer)
    with fitting():
        check_order(transfer, images)
    return conduct(prepare(transfer, method, images, judge, device), save_results)
