"""The views of published recipes: one policy per view."""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.views.policy import Policy

_MOCO_V2_VIEW = Policy(area=(0.2, 1.0), flip_last=True, jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.5, solarize_p=0.0)
_LEWEL_B_VIEW = Policy(area=(0.2, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur_p=1.0, solarize_p=0.0)
_BYOL_VIEW = replace(_LEWEL_B_VIEW, area=(0.08, 1.0), interpolation="bicubic")

SUPERVISED_VIEW = Policy(area=(0.08, 1.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0)
"""Crop and mirror image, as supervised networks and linear probes are trained on ImageNet."""

DISTILLED_VIEW = Policy(area=(0.14, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur_p=0.1)
"""View of a student whose teacher sees the same view: crops as wide as in LightlyTrain's distillation, without
solarization."""
DISTILLED_KEPT_VIEW = Policy(area=(0.5, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur_p=0.0)
"""View of a student whose teacher saw the middle square: mild crops, which still show what the teacher saw."""

INSTDISC_VIEW = Policy(flip_last=True, jitter_p=1.0, jitter=(0.4, 0.4, 0.4, 0.4), blur_p=0.0)
"""Wu et al., 2018. https://arxiv.org/abs/1805.01978. The colours of every image change, and some lose them."""

MOCO_V2_VIEWS = (_MOCO_V2_VIEW, _MOCO_V2_VIEW)
"""Chen et al., 2020. https://arxiv.org/abs/2003.04297. Also LEWEL_M's."""

LEWEL_B_VIEWS = (_LEWEL_B_VIEW, replace(_LEWEL_B_VIEW, blur_p=0.1, solarize_p=0.2))
"""Huang et al., 2022. https://arxiv.org/abs/2203.14898. BYOL's two views, but with the crops of MoCo v2."""

BYOL_VIEWS = (_BYOL_VIEW, replace(_BYOL_VIEW, blur_p=0.1, solarize_p=0.2))
"""Grill et al., 2020. https://arxiv.org/abs/2006.07733. Chances and strengths are the paper's. The pixels are not
those of DeepMind's code, which works on floats: its Gaussian is cut off at 23 taps (here Pillow's three boxes), its
brightness adds (here it multiplies), its saturation scales that of HSV (here it mixes with grey), it solarizes from 0.5
(here from level 128), and it crops and resizes with TensorFlow's functions (here torchvision's and Pillow's)."""

PIXPRO_VIEWS = (replace(BYOL_VIEWS[0], interpolation="bilinear"), replace(BYOL_VIEWS[1], interpolation="bilinear"))
"""Xie et al., 2021 (https://arxiv.org/abs/2011.10043): BYOL's two views, bilinear as their code has them."""

_SIMCLR_VIEW = Policy(area=(0.08, 1.0), interpolation="bicubic", jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5)
SIMCLR_VIEWS = (_SIMCLR_VIEW, _SIMCLR_VIEW)
"""Chen et al., 2020 (https://arxiv.org/abs/2002.05709), appendix A, at full strength; bicubic as their code has it."""

SMALL_CROP = 3 / 7
"""The share of a side that small crops of 96 px have beside views of 224 px."""
_SWAV_VIEW = Policy(area=(0.14, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5)
SWAV_VIEWS = (_SWAV_VIEW, _SWAV_VIEW)
SWAV_CROP = replace(_SWAV_VIEW, area=(0.05, 0.14), size_share=SMALL_CROP)
"""Caron et al., 2020. https://arxiv.org/abs/2006.09882. Their code divides by a deviation of .228 for red, not .229."""

DINO_VIEWS = (replace(BYOL_VIEWS[0], area=(0.14, 1.0)), replace(BYOL_VIEWS[1], area=(0.14, 1.0)))
DINO_CROP = replace(BYOL_VIEWS[0], area=(0.05, 0.14), blur_p=0.5, size_share=SMALL_CROP)
"""Caron et al., 2021 (https://arxiv.org/abs/2104.14294): BYOL's two views and small crops, of the areas for ResNets."""

_SUPCON_VIEW = Policy(area=(0.2, 1.0), blur_p=0.0)
SUPCON_VIEWS = (_SUPCON_VIEW, _SUPCON_VIEW)
"""Khosla et al., 2020 (https://arxiv.org/abs/2004.11362), as their PyTorch code has them, without blur. On ImageNet the
paper uses AutoAugment, which is not made here."""

_VICREG_VIEW = replace(_BYOL_VIEW, blur_p=0.5, solarize_p=0.1, interpolation="bilinear")
VICREG_VIEWS = (_VICREG_VIEW, _VICREG_VIEW)
"""Bardes et al., 2022 (https://arxiv.org/abs/2105.04906), appendix C: BYOL's two views made one in the middle.
The authors' code, and VICRegL's, have BYOL's two."""


def _without_blur(views: tuple[Policy, Policy]) -> tuple[Policy, Policy]:
    return replace(views[0], blur_p=0.0), replace(views[1], blur_p=0.0)


MOCO_V2_SMALL_VIEWS = _without_blur(MOCO_V2_VIEWS)
LEWEL_B_SMALL_VIEWS = _without_blur(LEWEL_B_VIEWS)
BYOL_SMALL_VIEWS = _without_blur(BYOL_VIEWS)
SIMCLR_SMALL_VIEWS = _without_blur((replace(_SIMCLR_VIEW, jitter=(0.4, 0.4, 0.4, 0.1)),) * 2)
"""For images of 32 to 64 px: without blur, as SimCLR (appendix B.9, https://arxiv.org/abs/2002.05709) has it for
CIFAR-10; a sigma of 2 px is meant for 224 px and leaves little of an image a seventh as wide."""
