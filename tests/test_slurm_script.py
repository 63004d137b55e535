"""The script for SLURM that a page shows, with stand-ins for SLURM's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

COMMANDS = {
    # SLURM's kills its tasks where it gets TERM itself.
    "srun": """
trap 'echo "step killed" >> log; exit 1' TERM
trap 'sleep 0.2; echo "step saved" >> log; exit 143' USR1
echo $$ > step.new; mv step.new step
while [ ! -e over ]; do sleep 0.01; done
""",
    "scancel": """
[ "$*" = "--signal=TERM 7" ] && kill -USR1 "$(cat step)"
""",
    "scontrol": """
[ "$1" = show ] && echo node1 && echo node2
[ "$1" = requeue ] && echo "requeued $2" >> log
true
""",
}


@pytest.fixture
def script(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The page's script, once its step has begun."""
    for name, lines in COMMANDS.items():
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/bash{lines}")
        command.chmod(0o755)
    page = (ROOT / "docs" / "devices.md").read_text()
    (tmp_path / "job").write_text(page.partition("```bash\n#!/bin/bash\n")[2].partition("```")[0])
    given = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
    with subprocess.Popen(["bash", "job"], cwd=tmp_path, env=os.environ | given, start_new_session=True) as started:
        while not (tmp_path / "step").exists():
            assert started.poll() is None
            time.sleep(0.01)
        try:
            yield started
        finally:
            (tmp_path / "over").touch()


def log(folder: Path) -> list[str]:
    place = folder / "log"
    return place.read_text().splitlines() if place.exists() else []


def test_a_job_whose_time_is_over_is_requeued_once_its_step_has_saved(
    script: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    script.send_signal(signal.SIGTERM)  # to the shell alone, as B: asks
    script.wait(60)
    assert log(tmp_path) == ["step saved", "requeued 7"]


def test_a_job_that_ends_by_itself_is_not_requeued(script: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "over").touch()
    script.wait(60)
    assert log(tmp_path) == []
