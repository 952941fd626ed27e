"""What tissue the pixels of H&E crops show, by color alone: simple, and the same for every section."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRUCTURES = ("nuclei", "stroma", "background", "edges")
FINEST_UM = 1.0  # resolution at which crops are looked at, in µm per pixel
EDGE_UM = 5.0  # how near to the background tissue is called an edge
GLASS = 0.15  # highest optical density of the background: where there is none, Otsu's threshold would split the tissue


def density(rgb: np.ndarray) -> np.ndarray:
    """Mean optical density `(..., H, W)` of uint8 colors `(..., H, W, 3)`: 0 where white."""
    return -np.log10((rgb.astype(np.float32) + 1) / 256).mean(axis=-1)


def glass_below(rgb: np.ndarray) -> float:
    """Density that tells background from tissue in a picture of the section: Otsu's threshold, at most 0.15."""
    from skimage.filters import threshold_otsu

    values = density(rgb)
    return min(float(threshold_otsu(values)), GLASS) if np.ptp(values) > 0 else GLASS


@dataclass(frozen=True)
class Palette:
    """Thresholds of a section.

    Parameters
    ----------
    glass
        Optical density below which a pixel is background.
    hematoxylin
        Amount of it above which a pixel of tissue is a nucleus.
    """

    glass: float
    hematoxylin: float

    @classmethod
    def of(cls, rgb: np.ndarray, glass: float) -> Palette:
        """From crops `(B, H, W, 3)`: Otsu's threshold on the hematoxylin of their tissue."""
        from skimage.color import rgb2hed
        from skimage.filters import threshold_otsu

        amount = rgb2hed(rgb)[..., 0][density(rgb) > glass]
        flat = not len(amount) or np.ptp(amount) == 0
        return cls(glass, np.inf if flat else float(threshold_otsu(amount)))

    def classes(self, rgb: np.ndarray, um: float) -> np.ndarray:
        """Position in :data:`STRUCTURES` of every pixel of crops `(B, H, W, 3)` of `um` µm per pixel, `(B, H, W)`.

        Background has no stain and is wider than two pixels; edges are tissue within 5 µm of it, whatever they show;
        nuclei are the tissue rich in hematoxylin (color deconvolution of Ruifrok and Johnston 2001); the rest is called
        stroma, be it stroma or cytoplasm.
        """
        from scipy.ndimage import binary_opening, distance_transform_edt
        from skimage.color import rgb2hed

        nuclei = rgb2hed(rgb)[..., 0] > self.hematoxylin
        found = np.where(nuclei, 0, 1)
        for classes, faint in zip(found, density(rgb) <= self.glass, strict=True):
            background = binary_opening(faint, np.ones((3, 3)))
            if background.any():
                classes[distance_transform_edt(~background) * um <= EDGE_UM] = 3
            classes[background] = 2
        return found
