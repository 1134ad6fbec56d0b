"""Sections of which a part is missing, or whose grey values are others, in raw alone."""

from __future__ import annotations

import gunpowder as gp
import numpy as np

from em_blocks.kernels.transforms.sections import change_grey, missing_part


class _OfSections(gp.BatchFilter):
    """Base of changes of the sections of one array, (z, y, x) float32."""

    def __init__(self, array: gp.ArrayKey):
        self.array = array

    def setup(self):
        self.enable_autoskip()
        self.updates(self.array, self.spec[self.array])

    def prepare(self, request):
        self.rng = np.random.default_rng(request.random_seed)


class MissingParts(_OfSections):
    """Replace a band across some sections by their mean.

    Parameters
    ----------
    array : gunpowder.ArrayKey
    share : float
        Of the sections.
    width : float
        Of the band, world units.
    """

    def __init__(self, array: gp.ArrayKey, share: float, width: float):
        super().__init__(array)
        self.share, self.width = share, width

    def process(self, batch, request):
        array = batch[self.array]
        pixels = self.width / array.spec.voxel_size[2]
        array.data = array.data.copy()
        for section in array.data:
            if self.rng.random() < self.share:
                band = missing_part(self.rng, section.shape, half_width=pixels / 2)
                section[band] = section.mean()


class GreyOfSections(_OfSections):
    """Change contrast, brightness and gamma of some samples section by section.

    Parameters
    ----------
    array : gunpowder.ArrayKey
        Intensities 0..1.
    share : float
        Of the samples.
    contrast, brightness, gamma : float
        As of `change_grey`.
    """

    def __init__(self, array: gp.ArrayKey, share: float, **most: float):
        super().__init__(array)
        self.share, self.most = share, most

    def process(self, batch, request):
        if self.rng.random() < self.share:
            array = batch[self.array]
            sections = [change_grey(self.rng, section, **self.most) for section in array.data]
            array.data = np.stack(sections)
