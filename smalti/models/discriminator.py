"""A discriminator that judges patches, for adversarial training of a decoder."""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """PatchGAN [1]: a few strided convolutions; every output says of one patch how real it looks.

    Shapes:
        images   (B, C, H, W) in [0, 1]
        returns  (B, 1, h, w), positive for real

    Args:
        channels: C.
        width: channels of the first layer, doubled by each of the next.
        layers: strided convolutions; a patch is 10, 22, 46, 94 pixels for 1 to 4 of them, and more after the last two.

    Differs from [1]: spectral normalisation (arXiv:1802.05957) in place of batch normalisation, so that an image's
    judgement does not depend on its company.

    References:
        [1] Isola et al. Image-to-Image Translation with Conditional Adversarial Networks. 2016. arXiv:1611.07004
    """

    def __init__(self, channels: int, *, width: int = 64, layers: int = 2):
        super().__init__()
        widths = [channels, *(width * 2**index for index in range(layers))]
        strided = [nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in itertools.pairwise(widths)]
        middle = nn.Conv2d(widths[-1], 2 * widths[-1], 3, padding=1)
        self.convolutions = nn.ModuleList(spectral_norm(layer) for layer in [*strided, middle])
        self.head = spectral_norm(nn.Conv2d(2 * widths[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """The judgements."""
        features = 2 * images - 1
        for convolution in self.convolutions:
            features = F.leaky_relu(convolution(features), 0.2)
        return self.head(features)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of judgements: mean of max(0, 1 - real) + max(0, 1 + fake), halved; arXiv:1705.02894."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """Minus the mean judgement of what the decoder made."""
    return -fake.mean()
