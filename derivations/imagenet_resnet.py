"""ResNet-50, -101 and -152 for ImageNet (He et al. 2015, Table 1): layers and parameters.

A block is a 1×1, a 3×3 and a 1×1 convolution, the last four times as wide; its shortcut is a 1×1 convolution where
the shape changes (option B). Convolutions have no bias; BatchNorm follows each of them. The stride of 2 is on the
first convolution, as in the paper; implementations that put it on the 3×3 have the same parameters, but more MACs.
"""

from __future__ import annotations

from derivations.layers import Layer, Shape, Size, conv, fc, pool, totals

INPUT = Shape(224, 224, 3)
CLASSES = 1000
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
Blocks = tuple[int, int, int, int]  # of each stage
RESNET50: Blocks = (3, 4, 6, 3)
RESNET101: Blocks = (3, 4, 23, 3)
RESNET152: Blocks = (3, 8, 36, 3)


def layers(blocks: Blocks = RESNET50) -> list[Layer]:
    """Convolutions, the pooling after the first of them and the classifier, in order."""
    stem = conv("conv1", INPUT, WIDTHS[0], k=7, s=2, p=3, bias=False)
    net = [stem, pool("pool1", stem.out, k=3, s=2, p=1)]
    shape = net[-1].out
    for stage, (width, repeats) in enumerate(zip(WIDTHS, blocks, strict=True), start=2):
        for block in range(1, repeats + 1):
            name, source = f"conv{stage}_{block}", shape
            stride = 2 if stage > 2 and block == 1 else 1
            narrow = conv(f"{name}.1", source, width, k=1, s=stride, bias=False)
            middle = conv(f"{name}.2", narrow.out, width, k=3, p=1, bias=False)
            wide = conv(f"{name}.3", middle.out, EXPANSION * width, k=1, bias=False)
            net += [narrow, middle, wide]
            shape = wide.out
            if shape != source:
                net.append(conv(f"{name}.shortcut", source, EXPANSION * width, k=1, s=stride, bias=False))
    net.append(fc("fc", Shape(1, 1, shape.c), CLASSES))
    return net


def parameters(blocks: Blocks = RESNET50) -> Size:
    """Weights, biases, and BatchNorm's scale and shift of each convolution's channels."""
    net = layers(blocks)
    batchnorm = sum((2 * layer.out.c for layer in net if layer.kind == "conv"), start=0)
    return totals(net).parameters + batchnorm


def macs(blocks: Blocks = RESNET50) -> Size:
    """Multiply-accumulates of convolutions and classifier, forward, per image."""
    return totals(layers(blocks)).macs
