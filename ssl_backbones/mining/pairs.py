"""Mined pairs in a file, tied to the images they were mined from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_backbones.data.images import Images, ImageSourceError
from ssl_backbones.data.keys import as_unicode
from ssl_backbones.files import object_in, replacing
from ssl_backbones.outputs import check_output

COLUMNS = ("global_1", "global_2", "local_1", "local_2")
NOTE = b"ssl_backbones.pairs"
FORM = 1


class PairsError(ImageSourceError):
    """Pairs that cannot be used, or cannot be written; the message says why, and how to come by others."""


@dataclass(frozen=True)
class Pairs:
    """The partners of N images, by row, and how they were found."""

    rows: np.ndarray
    """(N, 4): of each image its global pair, then its local pair."""
    about: dict[str, Any]
    """Notes of `mine_pairs`: model, layer, classes that were sampled, versions."""

    def write(self, path: str | Path, images: Images, *, overwrite: bool = False) -> None:
        """Leave a parquet file with the keys of each image and of its partners: the whole of it, or none.

        Raises OutputError where there is a file already, and PairsError where it cannot be written.
        """
        pa, pq = pyarrow()
        path = Path(path)
        check_output(path, overwrite)
        keys = pa.array(as_unicode(images.keys))
        partners = [keys.take(pa.array(column)) for column in self.rows.T]
        note = {"form": FORM, "images": len(images), "fingerprint": images.fingerprint, **self.about}
        table = pa.table([keys, *partners], names=["key", *COLUMNS]).replace_schema_metadata({NOTE: json.dumps(note)})
        try:
            with replacing(path) as file:
                pq.write_table(table, file, compression="zstd")
        except OSError as error:
            raise PairsError(f"{str(path)!r} cannot be written ({error.strerror}): name another with --out") from error

    @staticmethod
    def read(path: str | Path, images: Images) -> Pairs:
        """The pairs that a file holds for these images; PairsError if it is of others, or is no such file."""
        pa, pq = pyarrow()
        if not Path(path).is_file():
            raise PairsError(f"the pairs {str(path)!r} do not exist: mine them with ssl-backbones mine-pairs")
        try:
            table = pq.read_table(path)
            about = object_in((table.schema.metadata or {})[NOTE])
            columns = [table[name].combine_chunks() for name in ("key", *COLUMNS)]
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise PairsError(
                f"{str(path)!r} is not a file of pairs, or is damaged: mine them with ssl-backbones mine-pairs"
            ) from error
        check_same(path, about, images)
        return Pairs(rows_of(columns, images, path), about)


def check_same(path: str | Path, about: dict[str, Any], images: Images) -> None:
    """Refuse pairs of other images, and pairs in a form that is not known here."""
    if about.get("form") != FORM:
        raise PairsError(
            f"the pairs {str(path)!r} are in form {about.get('form')!r}, and form {FORM} is read here: mine them anew"
        )
    if not images.known_as(about.get("fingerprint")):
        raise PairsError(
            f"the pairs {str(path)!r} were mined from other images ({about.get('images')} with fingerprint "
            f"{str(about.get('fingerprint'))[:12]}, not {len(images)} with {images.fingerprint[:12]}): mine them anew "
            "from these with ssl-backbones mine-pairs, or name the data that they were mined from"
        )


def rows_of(columns: list[Any], images: Images, path: str | Path) -> np.ndarray:
    """The rows (N, 4) of the partners that columns of keys name, image by image."""
    pa, _ = pyarrow()
    import pyarrow.compute as pc

    own = pa.array(as_unicode(images.keys))
    found = [pc.fill_null(pc.index_in(column, value_set=own), -1).to_numpy() for column in columns]
    rows = np.full((len(images), len(COLUMNS)), -1, np.int64)
    if min(map(np.min, found)) >= 0:
        rows[found[0]] = np.stack(found[1:], axis=1)
    if (rows < 0).any():
        raise PairsError(f"the pairs {str(path)!r} do not name every image and partner: mine them anew")
    return rows


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and its reader of parquet files; PairsError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise PairsError("pyarrow is not installed: pip install 'ssl-backbones[train]'") from error
    return pyarrow, pyarrow.parquet
