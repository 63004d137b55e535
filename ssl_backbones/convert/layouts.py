"""Every layout of checkpoints that is known; what a file holds decides which it is."""

from ssl_backbones.convert.haiku import HAIKU
from ssl_backbones.convert.layout import Layout, Prefixed

FC = ("fc.weight", "fc.bias")
"""A linear classifier."""

LAYOUTS: tuple[Layout, ...] = (
    # An online network, which is kept, and a target: LEWEL, Huang et al., 2022; EMAN's BYOL, Cai et al., 2021.
    Prefixed(
        "LEWEL and EMAN",
        "online_net.backbone.",
        heads=("online_net.neck.", "target_net.", "predictor.", "predictor_obj."),
    ),
    # A query encoder, which is kept, and a key encoder: He et al., 2019, Chen et al., 2020, and EMAN's MoCo.
    Prefixed("MoCo", "encoder_q.", heads=("encoder_k.", "queue", "queue_ptr"), within=(*FC, "fc.0.", "fc.2.")),
    # A projector in the classifier's place: Chen and He, 2021.
    Prefixed("SimSiam", "encoder.", heads=("predictor.",), within=("fc.",)),
    # Supervised contrastive learning, and SimCLR beside it: Khosla et al., 2020. On several GPUs the wrapper's prefix
    # stands inside. Networks for small images call a downsample a shortcut.
    Prefixed("SupCon", "encoder.module.", heads=("head.",), renamed={".shortcut.": ".downsample."}),
    Prefixed("SupCon", "encoder.", heads=("head.",), within=FC, renamed={".shortcut.": ".downsample."}),
    # Zbontar et al., 2021; Bardes et al., 2022; Caron et al., 2021.
    Prefixed("Barlow Twins, VICReg and DINO", "backbone.", heads=("projector.", "bn.", "head.")),
    # RotNet, Jigsaw, NPID, ClusterFit and PIRL: Goyal et al., 2021.
    Prefixed("VISSL", "_feature_blocks.", within=FC),
    # Bare, as Barlow Twins, VICReg, DINO and supervised networks are published, LEWEL extracts them, and relational
    # reasoning (Patacchiola and Storkey, 2020) keeps them in a dictionary of their own.
    Prefixed("torchvision", "", heads=FC),
    # SwAV, DeepCluster-v2 and SeLa-v2: Caron et al., 2020.
    Prefixed("SwAV", "", heads=("projection_head.", "prototypes.")),
    HAIKU,
)
"""The first of those that fit alike, as for a bare backbone, names the layout; what comes out is the same."""
