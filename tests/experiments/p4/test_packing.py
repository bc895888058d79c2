"""experiments.p4.packing: weights lie as the matrix units read them."""

from __future__ import annotations

import pytest
import torch

from experiments.p4.packing import Conv, Packed


@pytest.mark.parametrize("rows_are_inputs", [True, False])
@pytest.mark.parametrize("channels", [16, 32])
def test_weights_are_packed_as_mma_wants_its_second_operand(channels: int, rows_are_inputs: bool) -> None:
    """PTX ISA, mma.m16n8k16, operand B: lane l's register r holds rows k = 8r + 2(l mod 4) and k + 1 of column l // 4.

    cuda_kernels.cu loads 16 rows and 16 columns at once, the two registers of the first eight columns, then of the
    others; it walks taps, then rows, then columns.
    """
    conv = Conv(c_in=channels, c_out=channels, kernel=3, stride=1, size=512 // channels, weight=0, channel=0)
    weights = torch.arange(9 * channels**2).view(9, channels, channels)  # (tap, C_in, C_out)
    order = Packed._pack_order(conv, rows_are_inputs)
    packed = torch.full_like(weights.flatten(), -1)
    packed[order.long()] = weights.flatten()
    matrices = (weights if rows_are_inputs else weights.transpose(1, 2)).tolist()  # (tap, k, n)
    want = [
        matrix[k0 + 8 * register + 2 * (lane % 4) + parity][n0 + half + lane // 4]
        for matrix in matrices
        for k0 in range(0, channels, 16)
        for n0 in range(0, channels, 16)
        for lane in range(32)
        for half in (0, 8)
        for register in (0, 1)
        for parity in (0, 1)
    ]
    assert packed.tolist() == want
