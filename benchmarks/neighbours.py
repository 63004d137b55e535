"""Nearest neighbours by torch and by faiss's exact indexes: python benchmarks/neighbours.py [--site FOLDER]

k-NN in evaluations, the nearest two in mining, and the nearest centre in k-means, each on one thread in a process of
its own, the two ways in turn. Features are of a random mixture of 1,000 Gaussians, of unit length for cosines.
faiss-cpu has to be installed, or lie in FOLDER (pip install --target FOLDER faiss-cpu). All of it takes about four
minutes of one core, on Linux.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import circumstances, command, on_threads, quartiles, write
from torch.nn.functional import normalize

from ssl_backbones.k_means import assigned, squares_of
from ssl_backbones.metrics.knn import nearest
from ssl_backbones.mining.neighbours import nearest_two

CASES: dict[str, tuple[str, int, int, int, int]] = {
    "k-NN, 50k x 512": ("knn", 50_000, 512, 1024, 200),
    "k-NN, 200k x 128": ("knn", 200_000, 128, 1024, 200),
    "k-NN, 200k x 512": ("knn", 200_000, 512, 512, 200),
    "k-NN, 1M x 128": ("knn", 1_000_000, 128, 512, 200),
    "nearest two of all, 10k x 512": ("mining", 10_000, 512, 0, 2),
    "nearest of 1,000 centres, 200k x 128": ("clusters", 200_000, 128, 1000, 1),
}
"""Question, features, width, queries or centres, and neighbours. As many queries as the package compares at once."""
QUICK = {
    "k-NN, quick": ("knn", 3000, 32, 200, 20),
    "nearest two of all, quick": ("mining", 2500, 32, 0, 2),
    "nearest of centres, quick": ("clusters", 3000, 32, 50, 1),
}
MIXTURE = 1000
"""Gaussians that features are drawn from."""
TIE = 1e-5
"""Difference of two values, of unit vectors or as a share, up to which float32 does not tell which is nearer."""
WAYS = ("torch", "faiss")
PACKAGES = ("torch", "numpy", "ssl-backbones")


def features(count: int, width: int, seed: int) -> torch.Tensor:
    """Unit features (N, D) of a mixture."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(MIXTURE, width, generator=torch.Generator().manual_seed(0))
    drawn = torch.randint(MIXTURE, (count,), generator=generator)
    return normalize(middles[drawn] + torch.randn(count, width, generator=generator), dim=1)


def by_torch(question: str, bank: torch.Tensor, asked: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and rows (M, k) of the nearest, by the functions that the package uses."""
    if question == "knn":
        norms = torch.linalg.vector_norm(bank, dim=1)
        values, rows = nearest(bank, norms, asked, k, None)
    elif question == "mining":
        rows = nearest_two(bank, torch.ones(len(bank)))
        values = torch.einsum("nd,nkd->nk", bank, bank[rows])
    else:
        nearest_centre, distances = assigned(bank, asked, squares_of(bank, len(asked)))
        values, rows = distances[:, None], nearest_centre[:, None]
    return values.numpy(), rows.numpy()


def by_faiss(question: str, bank: torch.Tensor, asked: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by faiss's exact indexes."""
    import faiss

    held, queries = (asked, bank) if question == "clusters" else (bank, bank if question == "mining" else asked)
    index = (faiss.IndexFlatL2 if question == "clusters" else faiss.IndexFlatIP)(bank.shape[1])
    index.add(held.numpy())
    values, rows = index.search(queries.numpy(), k + (question == "mining"))
    return (values, rows) if question != "mining" else without_itself(values, rows)


def without_itself(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two nearest others (N, 2), of the three nearest (N, 3) of all."""
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True
    return values[~own].reshape(-1, 2), rows[~own].reshape(-1, 2)


def memory(line: str) -> float:
    """The memory that Linux notes of this process, in MB: VmRSS that is held, VmHWM the most since the last reset."""
    status = Path("/proc/self/status").read_text()
    return float(status.split(f"{line}:")[1].split()[0]) * 1024 / 1e6


def one_way(case: str, way: str, folder: Path) -> None:
    """Time one way of one case, and leave its answer, its time and its memory in files."""
    question, count, width, others, k = (CASES | QUICK)[case]
    bank, asked = features(count, width, 1), features(others, width, 2)
    version, ask = None, by_torch
    if way == "faiss":
        import faiss

        faiss.omp_set_num_threads(1)
        version, ask = faiss.__version__, by_faiss
    ask(question, bank[:500], asked[:50] if question == "knn" else asked, min(k, 50))  # what is loaded at first use
    Path("/proc/self/clear_refs").write_text("5")
    held, began, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    values, rows = ask(question, bank, asked, k)
    seconds = {"cpu_s": time.process_time() - began, "wall_s": time.perf_counter() - wall}
    np.savez(folder / f"{way}.npz", values=values, rows=rows)
    (folder / f"{way}.json").write_text(json.dumps(seconds | {"mb": memory("VmHWM") - held, "version": version}))


def started(case: str, way: str, folder: Path) -> dict[str, Any]:
    """The time and memory of one way, from a process of its own."""
    process = get_context("fork").Process(target=one_way, args=(case, way, folder))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{case} by {way} failed with exit code {process.exitcode}")
    found: dict[str, Any] = json.loads((folder / f"{way}.json").read_text())
    return found


def agreement(folder: Path) -> dict[str, Any]:
    """The answers of both ways held against each other: the same rows, or others whose values are a tie."""
    mine, theirs = (np.load(folder / f"{way}.npz") for way in WAYS)
    apart = mine["rows"] != theirs["rows"]
    off = np.abs(mine["values"] - theirs["values"]) / np.maximum(1, np.abs(mine["values"]))
    return {
        "answers": int(apart.size),
        "other_row": int(apart.sum()),
        "largest_difference": float(off.max()),
        "same_up_to_ties": bool((off <= TIE).all()),
    }


def measured(case: str, rounds: int, folder: Path) -> dict[str, Any]:
    """A case by both ways in turn."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            runs[way].append(started(case, way, folder))
    question, count, width, others, k = (CASES | QUICK)[case]
    ratio = np.array([run["cpu_s"] for run in runs["torch"]]) / [run["cpu_s"] for run in runs["faiss"]]
    row = {"case": case, "question": question, "features": count, "width": width, "others": others, "k": k}
    for way in WAYS:
        row[way] = {
            "cpu_s": quartiles([run["cpu_s"] for run in runs[way]], 3),
            "wall_s": quartiles([run["wall_s"] for run in runs[way]], 3),
            "mb": round(max(run["mb"] for run in runs[way]), 1),
        }
    row["rounds"], row["torch_to_faiss"] = rounds, quartiles(ratio, 2)
    row["faiss_version"] = runs["faiss"][0]["version"]
    return row | agreement(folder)


def said(row: dict[str, Any]) -> str:
    """A line on a case."""
    ways = [f"{way} {row[way]['cpu_s']['median']} s, {row[way]['mb']} MB" for way in WAYS]
    same = "all ties" if row["same_up_to_ties"] else "NOT ALL TIES"
    ratio = f"torch / faiss {row['torch_to_faiss']['median']}"
    return f"{row['case']}: {'; '.join(ways)}; {ratio}; {row['other_row']} of {row['answers']} rows differ, {same}"


def table_line(row: dict[str, Any]) -> str:
    """A case as benchmarks/README.md tells it."""
    asked = f"{row['case']}" + (f", {row['others']} queries, k {row['k']}" if row["question"] == "knn" else "")
    ways = [f"{row[way]['cpu_s']['median']:.2f} s, {row[way]['mb']:.0f} MB" for way in WAYS]
    spread = row["torch_to_faiss"]
    ratio = f"{spread['median']} [{spread['q1']}, {spread['q3']}]"
    same = f"{row['other_row']} of {row['answers']}, {'ties' if row['same_up_to_ties'] else 'NOT ALL TIES'}"
    return f"| {asked} | {ways[0]} | {ways[1]} | {ratio} | {same} |"


def main() -> None:
    """Measure every case, and write the results down after each."""
    parser = command(__file__, __doc__, rounds=3)
    parser.add_argument("--site", default="", help="a folder that holds faiss")
    parser.add_argument("--quick", action="store_true", help="small cases, to see that all works")
    options = parser.parse_args()
    sys.path[:0] = [options.site] if options.site else []
    on_threads(1)
    results: dict[str, Any] = circumstances(PACKAGES) | {"rounds": options.rounds, "tie": TIE, "measured": []}
    with tempfile.TemporaryDirectory() as folder:
        for case in QUICK if options.quick else CASES:
            row = measured(case, options.rounds, Path(folder))
            results["measured"].append(row)
            print(said(row), flush=True)
            write(results, options.out)


if __name__ == "__main__":
    main()
