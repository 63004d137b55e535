"""The ground of every test: no network, one thread, and a few images."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

gc.disable()  # until all tests are collected: what is imported until then stays

# One folder for this process and all that it starts, however they end: the first makes it, and deletes it.
if not os.path.isdir(os.environ.get("SSL_BACKBONES_TESTS", "")):
    OWN = tempfile.TemporaryDirectory(prefix="ssl-backbones-tests-")
    os.environ["SSL_BACKBONES_TESTS"] = OWN.name
SHARED = Path(os.environ["SSL_BACKBONES_TESTS"])
HOME = tempfile.mkdtemp(prefix="home-", dir=SHARED)

# A shell without job control has what it starts in the background ignore this, and so would all that tests start.
for end in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(end) is signal.SIG_IGN:
        signal.signal(end, signal.default_int_handler if end == signal.SIGINT else signal.SIG_DFL)

# Hub constants are read when huggingface_hub is imported, so these come before anything that imports it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = HOME
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
for name in ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_DATASETS_CACHE"):
    os.environ.pop(name, None)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["SSL_BACKBONES_THREADS"] = "1"
os.environ["SSL_BACKBONES_CACHE"] = os.path.join(HOME, "ssl_backbones")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from PIL import Image  # noqa: E402

os.fsync = os.fstat  # nothing here is to outlast a power cut; programs that tests start do wait for the disk
settings.register_profile(
    "slow machine", max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("slow machine")
ROOT = Path(__file__).resolve().parents[1]
in_repository = pytest.mark.skipif(
    not (ROOT / "weights").is_dir(), reason="reads what the repository has and a source archive leaves out"
)


def pytest_configure() -> None:
    """Compute on the CPU whatever the machine has, unless SSL_BACKBONES_TEST_GPU asks for the tests that want a GPU."""
    if "SSL_BACKBONES_TEST_GPU" not in os.environ:
        os.environ.update(CUDA_VISIBLE_DEVICES="", ACCELERATE_USE_CPU="true")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give every worker of `-n` one piece of the tests, so that what the tests of a module share is made once."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that are named by an address in memory: every worker of `-n` would call them otherwise."""
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:
        raise pytest.UsageError(f"{unstable[0]} has another name in every process: give its case an id.")


def pytest_collection_finish() -> None:
    """Compute in one thread, and leave what was imported, which stays, out of all later searches for garbage."""
    import torch  # not with this file: the process that hands out the tests of `-n` has no use for it
    from torch.utils.data import _utils as reading

    torch.set_num_threads(1)
    reading.MP_STATUS_CHECK_INTERVAL = 0.5  # seconds that a reader is waited for whose queue was garbage before it
    for device in (torch.cuda, torch.xpu, torch.mtia):  # none of which is begun: each seed would keep the whole stack
        device.traceback = SimpleNamespace(format_stack=list)
    gc.collect()
    gc.freeze()
    gc.enable()


def drawn_image(number: int, width: int, height: int) -> Image.Image:
    """A picture with what images have: a gradient, an edge, a blob of colour and grain; the same for a number."""
    draw = drawn_levels if width * height <= 128 * 128 else drawn_levels.__wrapped__
    return Image.fromarray(draw(number, width, height))


@lru_cache(maxsize=1024)
def drawn_levels(number: int, width: int, height: int) -> np.ndarray:
    """The levels (H, W, 3) of such a picture."""
    stream = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    sky = np.stack([x * stream.uniform(80, 200), y * stream.uniform(80, 200), (x + y) * stream.uniform(40, 100)], -1)
    centre, radius = stream.uniform(0.2, 0.6, 2), stream.uniform(0.1, 0.3)
    sky[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = stream.uniform(0, 255, 3)
    sky[y > stream.uniform(0.5, 0.8)] *= 0.4
    levels = (sky + stream.normal(0, 6, sky.shape)).clip(0, 255).astype(np.uint8)
    levels.setflags(write=False)
    return levels


@pytest.fixture
def small_images() -> list[Image.Image]:
    """Six small RGB images of different shapes, always the same ones."""
    sizes = [(64, 48), (48, 64), (80, 80), (96, 40), (40, 96), (33, 57)]
    return [drawn_image(number, width, height) for number, (width, height) in enumerate(sizes)]


@pytest.fixture(scope="session")
def sample_images() -> list[Image.Image]:
    """The first 48 validation images that ship with the repository: RGB, their short side 72."""
    from ssl_backbones.data import open_images

    images = open_images(ROOT / "training" / "sample_photos" / "validation.parquet")
    return [images[row] for row in range(48)]


@pytest.fixture(scope="session", autouse=True)
def pickles_are_read() -> Iterator[None]:
    """Skip whatever test comes to a pickle with a torch older than 2.10, where the package refuses to read any."""
    import torch

    from ssl_backbones.convert import reading

    def skip(pickle: str) -> None:
        pytest.skip("no pickle is read with a torch older than 2.10")

    with pytest.MonkeyPatch.context() as patch:
        if torch.torch_version.TorchVersion(torch.__version__) < (2, 10):
            patch.setattr(reading, "require_safe_torch", skip)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that lies beside the repository; tests that ask for it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data sets that lie beside the repository, in ../shared/data, are not here")
    return folder


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """An empty folder that other users may enter, as they may not enter tmp_path."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)
