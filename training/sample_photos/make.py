"""Makes the sample images: all of clothing-dataset-small, smaller. `python make.py FOLDER_OF_ITS_PARQUET_FILES`"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SHORT_SIDE = 72
QUALITY = 83
MAX_BYTES = 8_000_000
SPLITS = {"train": ["train"], "validation": ["validation", "test"]}


def shrink(content: bytes) -> bytes:
    """The image as JPEG, its short side SHORT_SIDE."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    out = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def smaller(table: pa.Table) -> pa.Table:
    """The table with its images shrunk; paths, labels, order and metadata as they were."""
    images = [{"bytes": shrink(row["bytes"]), "path": row["path"]} for row in table["image"].to_pylist()]
    return table.set_column(0, table.schema.field("image"), pa.array(images, table.schema.field("image").type))


def main(source: Path, out: Path) -> None:
    """Write the splits, made smaller, and say how large they are."""
    for name, parts in SPLITS.items():
        table = pa.concat_tables(
            pq.read_table(source / f"{part}.parquet", columns=["image", "label"]) for part in parts
        )
        pq.write_table(smaller(table), out / f"{name}.parquet", compression="zstd", row_group_size=1000)
    total = sum((out / f"{name}.parquet").stat().st_size for name in SPLITS)
    print(f"{total:,} bytes")
    if total > MAX_BYTES:
        sys.exit(f"the images take {total:,} bytes of at most {MAX_BYTES:,}: choose a smaller side or quality")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("one argument is expected: the folder that holds train.parquet, validation.parquet and test.parquet")
    main(Path(sys.argv[1]), Path(__file__).parent)
