"""Check that the distributions in a folder hold what git tracks: python .ci/check_distributions.py dist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tracked(*folders: str) -> set[str]:
    """The files that git tracks below some folders."""
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name}


def wrong_wheel(path: Path) -> list[str]:
    """The files that a wheel lacks, and those beyond the package and its metadata."""
    with zipfile.ZipFile(path) as archive:
        held = set(archive.namelist())
    metadata = {name for name in held if name.partition("/")[0].endswith(".dist-info")}
    package = tracked("ssl_backbones")
    complaints = [f"{name} is missing" for name in sorted(package - held)]
    complaints += [f"{name} does not belong there" for name in sorted(held - package - metadata)]
    licences = [name for name in metadata if name.endswith("/licenses/LICENSE")]
    return complaints + ([] if licences else ["the LICENSE is missing"])


def wrong_archive(path: Path) -> list[str]:
    """The files of library, scripts, tests and documents that a source archive lacks."""
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = tracked("ssl_backbones", "training", "tests", "model_cards", "LICENSE", "README.md", "CHANGELOG.md")
    return [f"{name} is missing" for name in sorted(wanted - held)]


def main(folder: Path) -> int:
    """0 if there is one of each and both are right."""
    wheels, archives = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if (len(wheels), len(archives)) != (1, 1):
        print(f"{folder} holds {len(wheels)} wheels and {len(archives)} source archives; build one of each there.")
        return 1
    complaints = [f"{path.name}: {complaint}" for path in wheels for complaint in wrong_wheel(path)]
    complaints += [f"{path.name}: {complaint}" for path in archives for complaint in wrong_archive(path)]
    print("\n".join(complaints) or "wheel and source archive hold what they should")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
