"""The columns of every experiment's rows, with units and meanings: the one place that writer and reader share."""

from __future__ import annotations

import pyarrow as pa

from experiments.store.timelines import P1_EPOCHS, P1_HOROVOD, P2_EPOCHS, P2_STRATEGY, column

SCHEMAS: dict[str, pa.Schema] = {
    "allreduce": pa.schema(
        [
            column("backend", pa.string(), "-", "of torch.distributed: nccl | gloo"),
            column("learners", pa.int64(), "learners", "p, processes that sum their vectors"),
            column("hosts", pa.int64(), "hosts", "that the learners are on, in turn"),
            column("device_kind", pa.string(), "-", "where the vectors are: gpu | cpu"),
            column("gbit", pa.float64(), "Gbit/s", "the most that a host sends; empty: no limit", nullable=True),
            column("threads", pa.int64(), "cores", "of a Gloo learner"),
            column("bytes", pa.int64(), "B", "n, size of the vector of float32"),
            column("window", pa.int64(), "-", "which measurement of this size, 1 is the first"),
            column("iterations", pa.int64(), "count", "all-reduces in the window, one after the other"),
            column("seconds", pa.float64(), "s", "of one all-reduce: the slowest learner's window over iterations"),
            column("algorithm_bandwidth", pa.float64(), "B/s", "n over seconds"),
            column("bus_bandwidth", pa.float64(), "B/s", "2(p−1)/p·n over seconds: what a ring's link carries"),
        ]
    ),
    "p1_horovod": P1_HOROVOD,
    "p2_input": pa.schema(
        [
            column("network", pa.string(), "-", "resnet50 (Keras' ResNet50 of 10 classes) | tiny (tests)"),
            column("dataset", pa.string(), "-", "fashion (Fashion-MNIST) | synthetic (never shown as Fashion-MNIST)"),
            column("device_kind", pa.string(), "-", "what the learner computes on: cpu | gpu"),
            column("per_learner_batch", pa.int64(), "images", "a step"),
            column("jit_compile", pa.bool_(), "-", "gradients compiled by XLA"),
            column("threads", pa.int64(), "cores", "that the process could use"),
            column("steps", pa.int64(), "steps", "in a window"),
            column("contender", pa.string(), "-", "fed (by the input pipeline) | resident (a batch on the device)"),
            column("window", pa.int64(), "-", "which window of the contender, 1 is the first; they take turns"),
            column("images_per_second", pa.float64(), "1/s", "images trained on per second in this window"),
        ]
    ),
    "p2_strategy": P2_STRATEGY,
    "p3_crosscheck": pa.schema(
        [
            column("net", pa.string(), "-", "network or module counted"),
            column(
                "quantity",
                pa.string(),
                "-",
                "what is counted: parameters = weights + biases (all vectors, BatchNorm's too); macs and flops of a "
                "forward pass; elementwise, the part of macs outside conv and fc layers; receptive_field",
            ),
            column(
                "counter",
                pa.string(),
                "-",
                "who counted: derivation, torch, torch.flop_counter, fvcore, keras, torchvision",
            ),
            column("value", pa.int64(), "count", "the count (pixels for a receptive field)"),
            column("layers", pa.int64(), "layers", "receptive field: number N of stacked convolutions", nullable=True),
            column("kernel", pa.int64(), "pixels", "receptive field: filter size F", nullable=True),
        ]
    ),
    "p4_cutout": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("augment", pa.string(), "-", "none | basic (crop, flip) | cutout (basic, then cutout)"),
            column("M", pa.int64(), "instances", "instances of each sample in a batch"),
            column("batch_size", pa.int64(), "samples", "B, distinct samples in a batch"),
            column("precision", pa.string(), "-", "storage type of activations: bf16 | fp32"),
            column("engine", pa.string(), "-", "fused (Triton kernels) | plain (PyTorch autograd)"),
            column("schedule", pa.string(), "-", "learning-rate schedule: authors | scaled"),
            column("epochs_planned", pa.int64(), "epochs", "length of the run"),
            column("epoch", pa.int64(), "epochs", "epochs finished, 1 is the first"),
            column("learning_rate", pa.float64(), "-", "learning rate of this epoch"),
            column("steps", pa.int64(), "steps", "optimiser steps in this epoch"),
            column("images", pa.int64(), "images", "augmented images processed in this epoch, M·B·steps"),
            column("train_loss", pa.float64(), "nat", "mean cross-entropy over the epoch's augmented images"),
            column("train_error", pa.float64(), "fraction", "share of the epoch's augmented images misclassified"),
            column("val_loss", pa.float64(), "nat", "cross-entropy on the 10,000 original test images"),
            column("val_error", pa.float64(), "fraction", "share of the original test images misclassified"),
            column("train_seconds", pa.float64(), "s", "wall clock of this epoch's training steps"),
            column("val_seconds", pa.float64(), "s", "wall clock of this epoch's validation"),
            column("wall_seconds", pa.float64(), "s", "training and validation since the first step, set-up excluded"),
            column("setup_seconds", pa.float64(), "s", "compilation and warm-up before the first step, all pieces"),
        ]
    ),
    "p4_images": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("index", pa.int64(), "-", "which test image"),
            column("label", pa.string(), "-", "its class"),
            column("draw", pa.int64(), "-", "0 is the original, then the cutouts"),
            column("centre_y", pa.int64(), "pixels", "row of the hole's centre", nullable=True),
            column("centre_x", pa.int64(), "pixels", "column of the hole's centre", nullable=True),
            column("masked_share", pa.float64(), "fraction", "share of the image that the hole masks"),
            column("png", pa.binary(), "-", "the image as a PNG file"),
        ]
    ),
    "p4_kernels": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("M", pa.int64(), "instances", "instances of each sample in a batch"),
            column("batch_size", pa.int64(), "samples", "B, distinct samples in a batch"),
            column("kernel", pa.string(), "-", "one compiled program, as derivations/roofline.py names it"),
            column("launches", pa.int64(), "count", "of this kernel in a step"),
            column("seconds", pa.float64(), "s", "that all its launches take in a step, median over steps"),
            column("seconds_least", pa.float64(), "s", "in the step where they took least"),
            column("seconds_most", pa.float64(), "s", "in the step where they took most"),
            column("bytes", pa.int64(), "B", "that they move in a step, derivations/roofline.py"),
            column("copy_bandwidth", pa.float64(), "B/s", "of a large copy on this device, bytes read plus written"),
            column("step_seconds", pa.float64(), "s", "of the whole step, replayed as a graph; alike in an M's rows"),
        ]
    ),
    "p4_masked_area": pa.schema(
        [
            column("length", pa.int64(), "pixels", "side of the hole before clipping"),
            column("side", pa.int64(), "pixels", "side of the image"),
            column("draws", pa.int64(), "count", "holes drawn"),
            column("mean_share", pa.float64(), "fraction", "mean masked share of the image"),
            column("standard_error", pa.float64(), "fraction", "standard error of the mean"),
        ]
    ),
    "p4_split": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("device_kind", pa.string(), "-", "what a learner is: cpu | gpu"),
            column("learners", pa.int64(), "learners", "that share a batch"),
            column("batch_norm", pa.string(), "-", "statistics: local, of a learner's part | synchronised, of all"),
            column("M", pa.int64(), "instances", "instances of each sample in all learners' batch"),
            column("batch_size", pa.int64(), "samples", "B, distinct samples in a batch"),
            column("precision", pa.string(), "-", "storage type of activations: bf16 | fp32"),
            column("engine", pa.string(), "-", "fused (Triton kernels) | plain (PyTorch autograd)"),
            column("repeat", pa.int64(), "-", "which repetition of the job"),
            column("epochs_planned", pa.int64(), "epochs", "length of the run"),
            column("epoch", pa.int64(), "epochs", "epochs finished, 1 is the first"),
            column("steps", pa.int64(), "steps", "optimiser steps in this epoch"),
            column("images", pa.int64(), "images", "augmented images of all learners in this epoch, M·B·steps"),
            column("train_loss", pa.float64(), "nat", "learner 0's mean cross-entropy over its part of the epoch"),
            column("val_loss", pa.float64(), "nat", "learner 0's cross-entropy on the original test images"),
            column("val_error", pa.float64(), "fraction", "share of them that learner 0 misclassifies"),
            column("seconds", pa.float64(), "s", "wall clock of this epoch's steps, the slowest learner's"),
            column("images_per_second", pa.float64(), "images/s", "images over seconds"),
            column("gradient_bytes", pa.int64(), "B", "averaged in a step, beside BatchNorm's statistics"),
            column("setup_seconds", pa.float64(), "s", "compilation and warm-up, the slowest learner's"),
        ]
    ),
    "p4_throughput": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("M", pa.int64(), "instances", "instances of each sample in a batch"),
            column("batch_size", pa.int64(), "samples", "B, distinct samples in a batch"),
            column("contender", pa.string(), "-", "ours | compiled | eager (fp32) | conventional (DataLoader)"),
            column("engine", pa.string(), "-", "fused | compiled | plain | dataloader (eager PyTorch fed by workers)"),
            column("precision", pa.string(), "-", "bf16 | fp32 | tf32 (fp32 with TF32 convolutions)"),
            column("workers", pa.int64(), "processes", "conventional: of the DataLoader", nullable=True),
            column("turn", pa.int64(), "-", "which of the contender's turns, 1 is the first"),
            column("window", pa.int64(), "-", "which window of the turn, 1 is the first"),
            column("images_per_second", pa.float64(), "1/s", "augmented images trained on per second in this window"),
            column("setup_seconds", pa.float64(), "s", "to the end of warm-up; conventional: empty", nullable=True),
            column("copy_bandwidth", pa.float64(), "B/s", "of a large copy on this device, bytes read plus written"),
            column("bytes_per_image", pa.int64(), "B", "what this contender's step moves, derivations/roofline.py"),
        ]
    ),
    "scaling_fit": pa.schema(
        [
            column("series", pa.string(), "-", "a measured or published curve, or a job of the homework"),
            column("network", pa.string(), "-", "the network trained"),
            column(
                "method", pa.string(), "-", "curve | choice, … | borrowed | link, … | bytes per … | homework | ahead"
            ),
            column("role", pa.string(), "-", "fitted | chosen on (the form was) | held out (not seen) | projected"),
            column("learners", pa.int64(), "learners", "p, GPUs or processes that train together"),
            column("per_learner_batch", pa.float64(), "images", "b, where the source states it", nullable=True),
            column("unit", pa.string(), "-", "of the values: images/s | efficiency (fraction)"),
            column("observed", pa.float64(), "unit", "measured or published; empty for a projection", nullable=True),
            column("predicted", pa.float64(), "unit", "the model's value"),
            column("low", pa.float64(), "unit", "interval for a new measurement, lower end", nullable=True),
            column("high", pa.float64(), "unit", "its upper end; empty for a fitted point", nullable=True),
            column("error", pa.float64(), "fraction", "predicted over observed, less one", nullable=True),
            column("gradient_bytes", pa.float64(), "byte", "fp32 gradient; empty for underived nets", nullable=True),
            column("link_gbit_per_second", pa.float64(), "Gbit/s", "a node's link as its source says", nullable=True),
            column("form", pa.string(), "-", "how communication grows with p: bandwidth", nullable=True),
            column(
                "form_weight",
                pa.float64(),
                "fraction",
                "how well it explains the fitted points, of three",
                nullable=True,
            ),
            column("freedom", pa.int64(), "points", "fitted points less parameters", nullable=True),
            column("compute_seconds", pa.float64(), "s/image", "computation c", nullable=True),
            column("overhead_seconds", pa.float64(), "s/step", "o, where batches tell it from c", nullable=True),
            column("exposed_seconds", pa.float64(), "s/image", "communication not hidden, at this p", nullable=True),
            column("bus_bytes_per_second", pa.float64(), "byte/s", "2(p−1)/p·n over its time", nullable=True),
            column("fit_points", pa.string(), "-", "learners of the fitted points, or what was borrowed"),
            column("source", pa.string(), "-", "where the observed values come from, or the projection's inputs"),
        ]
    ),
}
# Predictions of sizes that were not run yet; role: fitted | projected, method: ahead.
SCHEMAS["scaling_ahead"] = SCHEMAS["scaling_fit"]

# What older files of an experiment have instead, by its version; the newest is counted on from these.
EARLIER = {("p1_horovod", 1): P1_EPOCHS, ("p2_strategy", 1): P2_EPOCHS}


def version(experiment: str) -> int:
    """The newest version of an experiment's columns, which is the one that is written."""
    return 1 + sum(name == experiment for name, _ in EARLIER)


def of(experiment: str, number: int | None = None) -> pa.Schema:
    """An experiment's columns in a version, by default the newest. Raises KeyError for an unknown one."""
    return SCHEMAS[experiment] if number in (None, version(experiment)) else EARLIER[experiment, number]
