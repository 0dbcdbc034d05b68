"""The fast forms give what the plain modules give."""

import torch
from torch import nn

from model.encoders.beats import PositionalConv
from scripts.make_tiny_backbone.fast_modules import FastPatches, FastPositionalConv, plain_attention


def test_positional_conv_equals_the_plain_one() -> None:
    torch.manual_seed(0)
    plain = PositionalConv(6, 20, 6)
    with torch.no_grad():
        plain.bias.normal_()
    x = torch.randn(2, 9, 6)
    expected = plain(x)
    plain.__class__ = FastPositionalConv
    torch.testing.assert_close(plain(x), expected)


def test_patches_equal_the_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 4, stride=4)
    x = torch.randn(2, 3, 8, 12)
    expected = conv(x)
    conv.__class__ = FastPatches
    torch.testing.assert_close(conv(x), expected)


def test_attention_equals_torch() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    mask = torch.zeros(1, 1, 5, 5).masked_fill(~torch.ones(5, 5).tril().bool(), -1e9)
    got, _ = plain_attention(nn.Identity(), q, k, v, mask)
    expected = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(got, expected)
