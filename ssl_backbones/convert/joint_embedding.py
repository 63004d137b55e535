"""Checkpoints of a training run with a backbone beside its head.

Barlow Twins, Zbontar et al., 2021; VICReg, Bardes et al., 2022; DINO, Caron et al., 2021; relational reasoning,
Patacchiola and Storkey, 2020, keeps the backbone in a dictionary of its own.
"""

from ssl_backbones.convert.layout import Prefixed

JOINT_EMBEDDING = Prefixed("Barlow Twins, VICReg and DINO", "backbone.", heads=("projector.", "bn.", "head."))
