"""Fresh processes that need not import the libraries: forked off a server that has imported them and done nothing else.

A plain interpreter takes seconds to import torch and timm. Where a test is about the import, the environment that a
program starts with or the launcher, it starts one with `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

LIBRARIES = ["accelerate", "datasets", "hypothesis", "pytest", "timm", "torch", "ssl_backbones.commands.pretrain"]
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def warm_context() -> BaseContext:
    """The way to start a process that has imported the libraries already, where the system knows one."""
    context = multiprocessing.get_context(METHOD)
    context.set_forkserver_preload(LIBRARIES)
    return context


def start_program(source: str, *words: object, said: Sequence[Path], **environment: str) -> BaseProcess:
    """Start source code as a program of its own, warnings ignored; files take what it says on stdout and stderr.

    The environment is this process's with changes; it may fork, and it may be killed.
    """
    given = (source, [str(word) for word in words], list(said), os.environ | environment)
    process = warm_context().Process(target=as_main, args=given)  # type: ignore[attr-defined]
    process.start()
    return process


def run_program(source: str, *words: object, **environment: str) -> CompletedProcess[str]:
    """Run source code as a program of its own to its end."""
    with tempfile.TemporaryDirectory() as name:
        said = [Path(name) / stream for stream in ("stdout", "stderr")]
        process = start_program(source, *words, said=said, **environment)
        process.join()
        return CompletedProcess(words, process.exitcode, *(path.read_text() for path in said))


def without(*packages: str) -> str:
    """The beginning of a program where some packages are not installed: this one is imported anew, without them."""
    return f"""
import sys
for name in [*sys.modules]:
    if name.partition(".")[0] in {("ssl_backbones", *packages)!r}:
        del sys.modules[name]
sys.modules.update(dict.fromkeys({packages!r}))
"""


def line_of(process: BaseProcess, said: Path, number: int = 0) -> str:
    """The line of that number, counted from 0, of what a running program says; waits until it is there."""
    while (text := said.read_text() if said.exists() else "").count("\n") <= number:
        assert process.is_alive(), text
        time.sleep(0.01)
    return text.splitlines()[number]


SCRIPT = """
import runpy, sys
del sys.argv[0]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(path: Path, *words: object) -> CompletedProcess[str]:
    """Run a script of the repository as a program of its own to its end."""
    return run_program(SCRIPT, path.as_posix(), *words)


SIGNALLING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
    for pid in sys.argv[1:]:
        os.kill(int(pid), number)
"""


def signal_from_elsewhere(children: Iterable[BaseProcess]) -> None:
    """Let another process send each of them what ends programs, as a cluster does that means the whole run."""
    subprocess.run([sys.executable, "-c", SIGNALLING, *(str(child.pid) for child in children)], check=True)


def as_main(source: str, words: Sequence[str], said: Sequence[Path], environment: dict[str, str]) -> None:
    """Be a program, in a process that has just begun."""
    for path, stream in zip(said, (sys.stdout, sys.stderr), strict=True):
        with open(path, "ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    take_environment(environment)
    warnings.simplefilter("ignore")
    sys.argv = ["-c", *words]
    exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})


def take_environment(environment: dict[str, str]) -> None:
    """Set the environment to that of the asking process, and start processes as a plain interpreter does."""
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)
