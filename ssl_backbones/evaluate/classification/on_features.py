"""A linear probe on images that look the same in every epoch: it is trained on their features, extracted once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_backbones.data import Images, require_batch
from ssl_backbones.data.subset import at
from ssl_backbones.distributed import first_decides, rank, say
from ssl_backbones.evaluate.classification.accuracy_judge import Answers, likeliest
from ssl_backbones.evaluate.classification.head_training import Plan, Training, logits_of, train_head
from ssl_backbones.evaluate.classification.labelled_run import (
    Asked,
    LabelledRun,
    built,
    opened,
    save_results,
)
from ssl_backbones.evaluate.classification.labelled_views import fitting_labels
from ssl_backbones.evaluate.classification.linear import LinearProbe
from ssl_backbones.evaluate.feature_store import folder_beside
from ssl_backbones.evaluate.features import Extraction, Features, features_of
from ssl_backbones.evaluate.transfer import Learnt
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.claiming import check_data, claimed, finished_with
from ssl_backbones.train.loader import reading_workers
from ssl_backbones.train.optimization import build_optimizer, set_hyperparameters
from ssl_backbones.train.precision import Precision
from ssl_backbones.train.prepare import fitting, meet_for


def train_on_features(run: LabelledRun, asked: Asked, more: Mapping[str, Any]) -> None:
    """Train and test a linear probe as the run says, from where it was left; `more` is told beside the numbers.

    Raises UnfitError for a head that cannot tell the classes apart, and what opening the model and the folder raises.
    """
    meet_for(run)
    require_batch(asked.images, run.batch_size)
    model = opened(run)
    run, method = built(run, model, asked)
    assert isinstance(method, LinearProbe)
    model = replace(model, crop=method.to_test(run.size))
    wanted = np.isin(np.arange(len(asked.whole)), asked.rows)
    learnt = features_of(model, asked.whole, extraction(run), wanted=wanted)
    tested = features_of(model, asked.validation, extraction(run))
    kept = asked.rows[learnt.readable[asked.rows]]
    images = at(asked.whole, kept)
    require_batch(images, run.batch_size)
    with fitting():
        labels = fitting_labels(images, method.config.classes, "a linear probe")
        build_optimizer(method, run)  # refuses a part that a probe does not have
    with claimed(run) as folder:
        if first_decides(folder.results.exists):
            say(f"{folder.path} holds the finished run; choose another folder with --out to run it again.")
            check_data(images, *first_decides(lambda: finished_with(folder)), folder)
        else:
            say(f"{run.title} on the features of {len(images)} images of {run.data}, into {folder.path}")
            probe = Probe(run, method, folder, model.device, images)
            steps = probe.train(learnt.rows, torch.tensor(labels).long(), tested, asked)
            answers = probe.answers(tested, asked.validation)
            precision = extraction(run).precision
            done = Learnt(images, folder, steps, model.device, precision, sorted(learnt.unreadable))
            say(first_decides(lambda: save_results(done, run, method, asked, answers, more)))


def extraction(run: LabelledRun) -> Extraction:
    """The settings of features, which are kept beside the run."""
    cache, workers = folder_beside(Path(run.out)), reading_workers(run.workers)
    precision: Precision = "fp32" if run.precision == "auto" else run.precision
    return Extraction(cache, precision, workers=workers, unreadable_share=run.unreadable_share)


@dataclass(frozen=True)
class Probe:
    """A linear probe on its way."""

    run: LabelledRun
    method: LinearProbe
    folder: RunFolder
    device: torch.device
    images: Images
    """The images that it is trained on."""

    def train(self, rows: Tensor, labels: Tensor, tested: Features, asked: Asked) -> int:
        """Train on features (N, D) with labels (N,) to the last step, with a test where one is due; the steps."""
        run, method = self.run, self.method
        method.head.to(self.device)
        optimizer = build_optimizer(method, run)
        training = Training(method.head, optimizer, self.folder.checkpoints, self.images)
        steps_per_epoch = len(rows) // run.batch_size
        total = run.total_steps(steps_per_epoch)
        plan = Plan(-(-total // steps_per_epoch), run.batch_size, run.seed, whole=True, max_steps=total)
        done = training.restore()
        resumed_at = min(done * steps_per_epoch, total) if done else None
        say(run.lr_sentence())
        with closing(RunLog(self.folder.path, total, run.batch_size, resumed_at=resumed_at, main=rank() == 0)) as log:

            def before_step(step: int) -> None:
                set_hyperparameters(optimizer, run, step, steps_per_epoch)
                log.advance()

            features, targets = rows.to(self.device), labels.to(self.device)
            with closing(train_head(training, features, targets, plan, done, before_step=before_step)) as epochs:
                for epoch, loss in epochs:
                    log.write(epoch, {"loss": loss, "lr": run.lr(log.step - 1, steps_per_epoch)})
                    last = epoch == plan.epochs
                    if last or (run.judge_every and epoch % run.judge_every == 0):
                        log.write(epoch, self.answers(tested, asked.validation).measured.scalars)
                    log.sync()
            if done < plan.epochs:
                training.save(plan.epochs)
        return total

    def answers(self, tested: Features, validation: Images) -> Answers:
        """The predictions for the validation images, by their features."""
        guesses = likeliest(logits_of(self.method.head, tested.rows.to(self.device))).cpu()
        return Answers.of(guesses, self.method.config.classes, validation, tested.readable)
