"""A discriminator that judges patches, for adversarial training of a decoder."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def blur_pool(features: Tensor) -> Tensor:
    """Every second position of features (B, C, h, w) after a blur, (B, C, h // 2, w // 2) [1].

    The blur is the triangle (1, 2, 1) / 4 in both directions, which has a zero at the frequency that striding would
    fold onto a constant; as two means of neighbours it is quick. Edges are repeated.

    References:
        [1] Zhang. Making Convolutional Networks Shift-Invariant Again. 2019. arXiv:1904.11486
    """
    padded = F.pad(features, (1, 0, 1, 0), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2)


class PatchDiscriminator(nn.Module):
    """PatchGAN [1]: a few convolutions, each pooled; every output says of one patch how real it looks.

    Shapes:
        images   (B, C, H, W) in [0, 1]
        returns  (B, 1, h, w), positive for real

    Args:
        channels: C.
        width: channels of the first layer, doubled by each of the next.
        layers: convolutions with pooling; a patch is 13, 29 or 61 pixels wide for 1, 2 or 3 of them.

    Differs from [1]: convolutions of stride 1 with `blur_pool` after them in place of strided ones, so that nothing
    that alternates from pixel to pixel passes for a constant; spectral normalisation (arXiv:1802.05957) in place of
    batch normalisation, so that an image's judgement does not depend on its company.

    References:
        [1] Isola et al. Image-to-Image Translation with Conditional Adversarial Networks. 2016. arXiv:1611.07004
    """

    def __init__(self, channels: int, *, width: int = 32, layers: int = 2):
        super().__init__()
        widths = [channels, *(width * 2**index for index in range(layers))]
        pooled = [nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)]
        middle = nn.Conv2d(widths[-1], 2 * widths[-1], 3, padding=1)
        self.convolutions = nn.ModuleList(spectral_norm(layer) for layer in [*pooled, middle])
        self.head = spectral_norm(nn.Conv2d(2 * widths[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """The judgements."""
        features = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        *pooled, middle = self.convolutions
        for convolution in pooled:
            features = blur_pool(F.leaky_relu(convolution(features), 0.2))
        return self.head(F.leaky_relu(middle(features), 0.2))


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of judgements: mean of max(0, 1 - real) + max(0, 1 + fake), halved; arXiv:1705.02894."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """Minus the mean judgement of what the decoder made."""
    return -fake.mean()


def lecam_penalty(real: Tensor, fake: Tensor, usual_real: Tensor, usual_fake: Tensor) -> Tensor:
    """Mean squared distance of judgements from the usual one of the other kind, a scalar; arXiv:2104.03310, eq. 4.

    It keeps a discriminator that has few images from growing sure of them.

    Args:
        real: judgements of images.
        fake: of what the decoder made.
        usual_real: moving average of the mean judgement of images, a scalar.
        usual_fake: of what the decoder made.
    """
    return (real - usual_fake).square().mean() + (fake - usual_real).square().mean()
