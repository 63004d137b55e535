"""The result tables of the three papers, row by row, as far as they are recorded; what is not stated stays empty.

LEWEL: Huang et al., CVPR 2022. https://arxiv.org/abs/2203.14898
FLAGS: Zhao and Zhou, Fuse Local and Global Semantics in Representation Learning.
Patch: Pham et al., 2021. https://arxiv.org/abs/2108.00475
Figures are in percent. A row that a recipe here trains carries the recipe's name, and a column the protocol here that
measures it, so that an evaluation can show the paper's figure beside its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ssl_backbones.registry.image_sets import IN1K, IN100, STL10_LABELLED, TINY
from ssl_backbones.registry.paper_table import Column, Figure, Row, Table


def figures_of(recipe: str, protocol: str, number: str) -> Iterator[Figure]:
    """The papers' figures for a number that a protocol measured of a recipe's network."""
    for figure in (figure for table in TABLES for figure in table.figures):
        measured_by = figure.protocol
        by_it = protocol == measured_by or (measured_by and protocol.startswith(f"{measured_by} ("))
        if figure.row.recipe == recipe and figure.number == number and by_it:
            yield figure


def table_of(name: str) -> Table | None:
    """The table of a name such as lewel-1; None if there is none."""
    return next((table for table in TABLES if table.name == name.lower()), None)


COCO, VOC = "COCO", "PASCAL VOC"
OWN = "its own classifier"
"""The classifier that a network learnt with from labels, in the place of a protocol: no evaluation measures it."""

BEST = "best of every 5 epochs"
"""Numbers of an evaluation that are LEWEL's: its code reports the best test, of the images that it is reported on."""
PROBE_B = ("linear (lewel_b)", f"top-1, {BEST}")
"""The protocol and the number of LEWEL_B's linear evaluation."""

LEWEL_1 = Table(
    "LEWEL",
    "Table 1",
    "Linear evaluation on ImageNet-1k of a ResNet-50",
    (Column("top-1", images=IN1K.name),),
    (
        Row("MoCo v2, 100 epochs", (64.5,), "resnet50_moco_v2.in1k_100ep", "linear (moco_v2)"),
        Row("MoCo v2, 200 epochs", (67.5,), "resnet50_moco_v2.in1k_200ep", "linear (moco_v2)"),
        Row("LEWEL_M, 100 epochs", (66.1,), "resnet50_lewel_m.in1k_100ep", "linear (lewel_m)"),
        Row("LEWEL_M, 200 epochs", (68.4,), "resnet50_lewel_m.in1k_200ep", "linear (lewel_m)"),
        Row("BYOL, 100 epochs", (70.6,), "resnet50_byol.in1k_100ep", *PROBE_B),
        Row("BYOL, 200 epochs", (71.9,), "resnet50_byol.in1k_200ep", *PROBE_B),
        Row("LEWEL_B, 100 epochs", (71.9,), "resnet50_lewel_b.in1k_100ep", *PROBE_B),
        Row("LEWEL_B, 200 epochs", (72.8,), "resnet50_lewel_b.in1k_200ep", *PROBE_B),
        Row("LEWEL_B, 400 epochs", (73.8,), "resnet50_lewel_b.in1k_400ep", *PROBE_B),
        Row("SimCLR, 200 epochs", (None,), "resnet50_simclr.in1k_200ep", *PROBE_B),
        Row("SimCLR, 400 epochs", (None,), "resnet50_simclr.in1k_400ep", *PROBE_B),
    ),
    "LEWEL_M at 200 epochs is 68.4 here and 68.1 in Table 8. The figures of SimCLR are not recorded. From BYOL "
    "on, LEWEL's code reports the best of its tests, every 5 epochs, on these very images; so does the preset here.",
)
LEWEL_2 = Table(
    "LEWEL",
    "Table 2",
    "Fine-tuning a ResNet-50 on 1 % and 10 % of ImageNet-1k's labels",
    (
        Column("1 %, top-1", "semi (lewel_1pct)", f"top-1, {BEST}", IN1K.name),
        Column("10 %, top-1", "semi (lewel_10pct)", f"top-1, {BEST}", IN1K.name),
        Column("1 %, top-5", "semi (lewel_1pct)", f"top-5, {BEST}", IN1K.name),
    ),
    (
        Row("MoCo v2, 200 epochs", (None, None, 72.3), "resnet50_moco_v2.in1k_200ep"),
        Row("LEWEL_M, 200 epochs", (45.1, 62.5, 71.1), "resnet50_lewel_m.in1k_200ep"),
        Row("LEWEL_B, 200 epochs", (56.1, 68.7, None), "resnet50_lewel_b.in1k_200ep"),
        Row("LEWEL_B, 400 epochs", (59.8, 70.4, None), "resnet50_lewel_b.in1k_400ep"),
    ),
    "The top-5 of LEWEL_M is below that of its baseline, as printed. That its rows are of 200 epochs is inferred.",
)
LEWEL_README = Table(
    "LEWEL",
    "README",
    "COCO by Mask R-CNN, 90k iterations where not said otherwise, as the public repository states it",
    (
        Column("C4, box AP", "detection (coco_1x)", "AP", COCO),
        Column("C4, mask AP", "detection (coco_1x)", "mask_AP", COCO),
        *(Column(f"FPN, {length}{kind} AP") for length in ("", "180k, ") for kind in ("box", "mask")),
    ),
    (
        Row("LEWEL_B, 200 epochs", (38.5, 33.7, 41.3, 37.4, 42.2, 38.2), "resnet50_lewel_b.in1k_200ep"),
        Row("LEWEL_B, 400 epochs", (None, None, 41.9, 37.9, 43.4, 39.1), "resnet50_lewel_b.in1k_400ep"),
    ),
    "The learning rate of fine-tuning was searched. Tables 3 and 4 of the paper are not recorded.",
)

IN100_COLUMNS = (
    Column("ImageNet-100, top-1", "linear", images=IN100.name),
    Column("VOC, mIoU", "segmentation (voc_fcn_d8)", "miou", VOC),
)
INFERRED = "The order of the rows is inferred from the text, and that the table is of LEWEL_M."

LEWEL_5 = Table(
    "LEWEL",
    "Table 5",
    "The parts of the objective, 240 epochs of ImageNet-100",
    IN100_COLUMNS,
    (
        Row("global loss alone (MoCo v2)", (79.5, 61.6), "resnet50_moco_v2.in100_240ep"),
        Row("aligned loss alone", (80.0, 62.6), "resnet50_lewel_m.in100_240ep_aligned_only"),
        Row("both, separate heads", (81.0, 62.7), "resnet50_lewel_m.in100_240ep_uncoupled"),
        Row("both, coupled head (LEWEL_M)", (82.1, 63.4), "resnet50_lewel_m.in100_240ep"),
    ),
    INFERRED,
)
LEWEL_6 = Table(
    "LEWEL",
    "Table 6",
    "The head and the maps, 240 epochs of ImageNet-100",
    IN100_COLUMNS,
    (
        Row("MoCo v2 with 256 dimensions", (79.8, 60.6), "resnet50_moco_v2.in100_240ep_dim256"),
        Row("MoCo v2 with 512 dimensions", (80.2, 61.5), "resnet50_moco_v2.in100_240ep_dim512"),
        Row("MoCo v2 with an extra head", (79.9, 62.2), "resnet50_lewel_m.in100_240ep_extra_head"),
        Row("random maps", (79.8, 61.9), "resnet50_lewel_m.in100_240ep_random"),
        Row("no extra head", (81.8, 63.0), "resnet50_lewel_m.in100_240ep_shared_head"),
        Row("LEWEL_M", (82.1, 63.4), "resnet50_lewel_m.in100_240ep"),
    ),
    INFERRED,
)
LEWEL_7 = Table(
    "LEWEL",
    "Table 7",
    "The number of maps c and of groups h, 240 epochs of ImageNet-100",
    (Column("ImageNet-100, top-1", *PROBE_B, IN100.name), IN100_COLUMNS[1]),
    (
        Row("BYOL", (81.4, 59.7), "resnet50_byol.in100_240ep"),
        Row("c = 512, h = 4", (84.6, 62.6), "resnet50_lewel_b.in100_240ep_c512_h4"),
        Row("c = 256, h = 1", (81.0, 63.2), "resnet50_lewel_b.in100_240ep_c256_h1"),
        Row("c = 256, h = 2", (82.6, 63.3), "resnet50_lewel_b.in100_240ep_c256_h2"),
        Row("c = 256, h = 4 (LEWEL_B)", (83.3, 63.4), "resnet50_lewel_b.in100_240ep"),
        Row("c = 256, h = 8", (83.1, 62.1), "resnet50_lewel_b.in100_240ep_c256_h8"),
        Row("c = 256, h = 16", (82.9, 61.4), "resnet50_lewel_b.in100_240ep_c256_h16"),
        Row("c = 128, h = 4", (83.8, 60.9), "resnet50_lewel_b.in100_240ep_c128_h4"),
        Row("c = 64, h = 4", (84.8, 61.8), "resnet50_lewel_b.in100_240ep_c64_h4"),
    ),
    "84.6, 83.8 and 84.8 exceed the 83.3 that the paper prints in bold; they are given as recorded. That their linear "
    "evaluation is that of Table 1 is inferred.",
)
LEWEL_8 = Table(
    "LEWEL",
    "Table 8",
    "LEWEL_M at 200 epochs of ImageNet-1k",
    (Column("top-1, linear", "linear (lewel_m)", images=IN1K.name),),
    (Row("LEWEL_M, 200 epochs", (68.1,), "resnet50_lewel_m.in1k_200ep"),),
    "Table 1 gives 68.4 for the same network. The table's other rows are not recorded.",
)

FLAGS_LINEAR = (Column("top-1, linear, best epoch", "linear (flags)", "top-1, best of every 1 epochs", IN1K.name),)
BOX, MASK = (("AP", "AP50", "AP75"), ("mask_AP", "mask_AP50", "mask_AP75"))
FLAGS_ROWS = (
    ("MoCo", "resnet50_flags.in1k_200ep_moco"),
    ("augmentation and global pair", "resnet50_flags.in1k_200ep_global"),
    ("augmentation, global and local pair", "resnet50_flags.in1k_200ep_global_local"),
)


def flags_table(
    place: str, caption: str, columns: tuple[Column, ...], figures: tuple[tuple[float, ...], ...], *more: Row, note: str
) -> Table:
    """A table of FLAGS: its three rows, and `more` before them."""
    rows = (Row(label, values, recipe) for (label, recipe), values in zip(FLAGS_ROWS, figures, strict=True))
    return Table("FLAGS", place, caption, columns, (*more, *rows), note)


QUOTED = "The supervised row looks quoted from the MoCo paper, of another batch."
FLAGS_1 = Table(
    "FLAGS",
    "Table 1",
    "What others report, as FLAGS quotes it",
    (Column("ImageNet-1k, top-1, linear", "linear", images=IN1K.name), Column("VOC, AP50")),
    (
        Row("SimCLR, 1000 epochs", (69.3, None), "resnet50_simclr.in1k_1000ep"),
        Row("MoCo v2, 800 epochs", (71.1, 82.5), "resnet50_moco_v2.in1k_800ep"),
        Row("supervised", (76.5, 81.3), "resnet50_supervised.in1k_90ep", OWN),
    ),
)
FLAGS_2 = flags_table(
    "Table 2",
    "Linear evaluation on ImageNet-1k of a ResNet-50, 200 epochs",
    FLAGS_LINEAR,
    ((67.16,), (78.45,), (77.75,)),
    note="Pairs are mined with labels: to be compared with supervised training.",
)
FLAGS_3 = flags_table(
    "Table 3",
    "COCO boxes by Mask R-CNN C4, 180k iterations of 8 images",
    tuple(Column(name, "detection (flags_coco)", name, COCO) for name in BOX),
    ((37.879, 57.201, 40.903), (38.344, 57.852, 41.357), (38.197, 58.053, 40.994)),
    Row("supervised", (38.2, 58.2, 41.2), "resnet50_supervised.in1k_90ep"),
    note=f"{QUOTED} The text says that the last row surpasses it; by the table it does not.",
)
FLAGS_4 = flags_table(
    "Table 4",
    "COCO masks by Mask R-CNN C4, 180k iterations of 8 images",
    tuple(Column(name.removeprefix("mask_"), "detection (flags_coco)", name, COCO) for name in MASK),
    ((33.312, 54.055, 35.598), (33.511, 54.461, 35.505), (33.431, 54.552, 35.460)),
    Row("supervised", (33.3, 54.7, 35.2), "resnet50_supervised.in1k_90ep"),
    note=QUOTED,
)
FLAGS_5 = flags_table(
    "Table 5",
    "VOC boxes by Faster R-CNN C4, 96k iterations of 4 images",
    tuple(Column(name, "detection (flags_voc)", name, VOC) for name in BOX),
    ((50.571, 78.879, 55.193), (50.701, 79.328, 54.310), (48.141, 78.348, 51.034)),
    note="The MoCo row is 6.4 AP below the MoCo repository's own; only differences between the rows mean something.",
)

PATCH_ROWS = (
    ("Supervised", "supervised", "", (40.45, None, 73.8, None), (74.54, None)),
    ("Random weights", "", "", (6.63, 36.78, 26.66, 57.96), (27.19, 60.20)),
    ("Deep InfoMax", "deep_infomax", "", (14.9, 27.78, 41.64, 57.66), (45.41, 68.56)),
    ("DeepCluster", "deepcluster", "", (12.57, 27.14, 41.7, 59.05), (41.35, 65.45)),
    ("RotNet", "rotnet", "", (16.32, 29.07, 60.48, 68.16), (52.25, 76.06)),
    ("Patch RelNet, 0.3", "patch_relnet", "_r30", (17.35, 29.32, 59.09, 69.95), (50.15, 75.55)),
    ("Patch RelNet, 0.4", "patch_relnet", "_r40", (16.04, 29.19, 60.28, 70.08), (45.76, 72.61)),
    ("Patch RelNet, 0.5", "patch_relnet", "_r50", (14.5, 28.54, 59.54, 69.81), (42.38, 73.7)),
    ("Patch RotNet, 0.3", "patch_rotnet", "_r30", (13.15, 30.01, 55.23, 69.17), (48.75, 68.71)),
    ("Patch RotNet, 0.4", "patch_rotnet", "_r40", (11.7, 28.9, 54.55, 69.28), (52.63, 77.06)),
    ("Patch RotNet, 0.5", "patch_rotnet", "_r50", (12.45, 29.29, 57.55, 69.43), (50.05, 78.38)),
)
"""Label, method, end of the tag; Table 1: linear and finetuned on Tiny-ImageNet, then on STL-10; Table 2: on STL-10."""
PATCH_COLUMNS = (Column("linear", "linear (patch)"), Column("finetuned", "finetune (patch)"))
RANDOM = "random weights"
PROBE = "Its linear evaluation has two fully connected layers by the text; here it is one."


def patch_table(place: str, caption: str, arch: str, data: str, figures: tuple[tuple[float | None, ...], ...]) -> Table:
    """A table of the Patch paper for one network and one data set."""
    rows = []
    for (label, method, end, *_), values in zip(PATCH_ROWS, figures, strict=True):
        recipe = f"{arch}_{method}.{data}_200ep{end}" if method else f"{arch} ({RANDOM})"
        rows.append(Row(label, values, recipe, OWN if method == "supervised" else ""))
    columns = tuple(
        replace(column, images={"tiny": TINY, "stl10": STL10_LABELLED}[data].name) for column in PATCH_COLUMNS
    )
    return Table("Patch", place, caption, columns, tuple(rows), f"One run each, without error bars. {PROBE}")


PATCH_TINY = patch_table(
    "Table 1a", "ResNet-8 on Tiny-ImageNet", "resnet8", "tiny", tuple(row[3][:2] for row in PATCH_ROWS)
)
PATCH_STL = patch_table("Table 1b", "ResNet-8 on STL-10", "resnet8", "stl10", tuple(row[3][2:] for row in PATCH_ROWS))
PATCH_DEEP = patch_table("Table 2", "ResNet-32 on STL-10", "resnet32", "stl10", tuple(row[4] for row in PATCH_ROWS))

TABLES = (
    *(LEWEL_1, LEWEL_2, LEWEL_README, LEWEL_5, LEWEL_6, LEWEL_7, LEWEL_8),
    *(FLAGS_1, FLAGS_2, FLAGS_3, FLAGS_4, FLAGS_5),
    *(PATCH_TINY, PATCH_STL, PATCH_DEEP),
)


def stated(recipe: str, *units: str) -> str:
    """The figures of the first row that a recipe trains, with units: "79.5 top-1, linear"; empty without a row."""
    row = next((row for table in TABLES for row in table.rows if row.recipe == recipe), None)
    return ", ".join(f"{figure} {unit}" for figure, unit in zip(row.figures if row else (), units, strict=False))
