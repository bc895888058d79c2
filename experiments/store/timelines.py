"""The columns of Problems 1 and 2: a row for each step or execution, and version 1's row for each epoch."""

from __future__ import annotations

import pyarrow as pa


def column(name: str, kind: pa.DataType, unit: str, doc: str, nullable: bool = False) -> pa.Field:
    """A column with its unit and meaning, which travel in the parquet file."""
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "doc": doc})


# Version 1 of Problems 1 and 2, a row for each learner (worker) and epoch: stored runs keep it, new ones have another.
P1_EPOCHS = pa.schema(
    [
        column("framework", pa.string(), "-", "tensorflow | torch"),
        column("model", pa.string(), "-", "where the network comes from: a package and its version, or a file"),
        column("device_kind", pa.string(), "-", "what a learner computes on: cpu (its cores) | gpu (one)"),
        column("learners", pa.int64(), "learners", "processes that train together, N"),
        column("hosts", pa.int64(), "hosts", "machines, or network namespaces, that they run on"),
        column("launcher", pa.string(), "-", "horovodrun | mpirun | slurm | none"),
        column("allreduce", pa.bool_(), "-", "gradients averaged; without it the learners are independent"),
        column("precision", pa.string(), "-", "float32 (GPUs: TF32 convolutions, the default) | mixed (bfloat16)"),
        column("batch_size", pa.int64(), "images", "per learner"),
        column("effective_batch", pa.int64(), "images", "that one update averages: of all learners, or of one"),
        column("image_size", pa.int64(), "pixels", "side of the synthetic images"),
        column("threads", pa.int64(), "cores", "logical CPUs that a learner is pinned to"),
        column("cores", pa.string(), "-", "which ones"),
        column("gbit", pa.float64(), "Gbit/s", "what an emulated host may send; empty: not limited", nullable=True),
        column("link_gbit", pa.float64(), "Gbit/s", "what its link was measured to do before the job", nullable=True),
        column("link_round_trip_us", pa.float64(), "µs", "its round trip, measured likewise", nullable=True),
        column("repeat", pa.int64(), "-", "which repetition of the job, 1 is the first"),
        column("rank", pa.int64(), "-", "which learner, 0 is the first"),
        column("host", pa.int64(), "-", "its host, 0 is the first"),
        column("epochs_planned", pa.int64(), "epochs", "length of the job"),
        column("epoch", pa.int64(), "epochs", "which epoch, 1 is the first; all learners start it together"),
        column("steps", pa.int64(), "steps", "in this epoch"),
        column("images", pa.int64(), "images", "that this learner trained on in this epoch"),
        column("seconds", pa.float64(), "s", "that it took for them"),
        column("images_per_second", pa.float64(), "1/s", "images over seconds, of this learner"),
        column("step_p10", pa.float64(), "s", "10 % of this epoch's steps took less"),
        column("step_p50", pa.float64(), "s", "half of them took less"),
        column("step_p90", pa.float64(), "s", "90 % of them took less"),
        column("loss", pa.float64(), "nat", "cross-entropy of the epoch's last step, this learner's batch"),
        column("parameters", pa.int64(), "count", "trained numbers of the network"),
        column("gradient_bytes", pa.int64(), "byte", "what one all-reduce averages"),
        column("warm_up_steps", pa.int64(), "steps", "before the first epoch, not in any row's seconds"),
        column("setup_seconds", pa.float64(), "s", "from the learner's start to the end of its warm-up"),
    ]
)
P2_EPOCHS = pa.schema(
    [
        column("network", pa.string(), "-", "resnet50 (Keras' ResNet50 of 10 classes) | tiny (tests)"),
        column("dataset", pa.string(), "-", "fashion (Fashion-MNIST) | synthetic (never shown as Fashion-MNIST)"),
        column("device_kind", pa.string(), "-", "what a learner computes on: cpu | gpu"),
        column("learner", pa.string(), "-", "what a learner is"),
        column("strategy", pa.string(), "-", "mirrored | multiworker: MirroredStrategy, MultiWorkerMirroredStrategy"),
        column("scaling", pa.string(), "-", "strong (effective batch held) | weak (batch per learner held)"),
        column("learners", pa.int64(), "learners", "replicas of the network, N"),
        column("workers", pa.int64(), "processes", "that the learners are shared out to"),
        column("hosts", pa.int64(), "hosts", "machines, or network namespaces, that they run on"),
        column("all_reduce", pa.string(), "-", "mirrored: default | nccl | hierarchical | one-device", nullable=True),
        column("communication", pa.string(), "-", "multiworker: auto | nccl | ring", nullable=True),
        column("base", pa.int64(), "images", "weak: batch per learner; strong: effective batch"),
        column("effective_batch", pa.int64(), "images", "that one update averages"),
        column("per_learner_batch", pa.int64(), "images", "that a learner takes per step"),
        column("learning_rate", pa.float64(), "-", "proportional to the effective batch unless it was given"),
        column("precision", pa.string(), "-", "float32 | mixed_bfloat16"),
        column("jit_compile", pa.bool_(), "-", "gradients compiled by XLA"),
        column("steps_per_execution", pa.int64(), "steps", "that TensorFlow ran in one call"),
        column("threads", pa.int64(), "cores", "per CPU learner"),
        column("gbit", pa.float64(), "Gbit/s", "what an emulated host may send; empty: not limited", nullable=True),
        column("link_gbit", pa.float64(), "Gbit/s", "what its link was measured to do before the job", nullable=True),
        column("link_round_trip_us", pa.float64(), "µs", "its round trip, measured likewise", nullable=True),
        column("repeat", pa.int64(), "-", "which repetition of the job, 1 is the first"),
        column("worker", pa.int64(), "-", "whose row this is, 0 is the first"),
        column("epochs_planned", pa.int64(), "epochs", "length of the job"),
        column("whole_epochs", pa.bool_(), "-", "an epoch has all training images, but for a last part of a batch"),
        column("epoch", pa.int64(), "epochs", "which epoch, 1 is the first"),
        column("steps", pa.int64(), "steps", "in this epoch"),
        column("images", pa.int64(), "images", "that this worker's learners trained on in this epoch"),
        column("seconds", pa.float64(), "s", "that it took for them, tests excluded"),
        column("images_per_second", pa.float64(), "1/s", "images over seconds, of this worker"),
        column("step_p10", pa.float64(), "s", "10 % of this epoch's iterations took less"),
        column("step_p50", pa.float64(), "s", "half of them took less"),
        column("step_p90", pa.float64(), "s", "90 % of them took less"),
        column("train_loss", pa.float64(), "nat", "mean cross-entropy over this worker's images"),
        column(
            "test_accuracy",
            pa.float64(),
            "fraction",
            "share of the 10,000 test images classified rightly, all workers",
            nullable=True,
        ),
        column("evaluation_seconds", pa.float64(), "s", "that the test after this epoch took", nullable=True),
        column("parameters", pa.int64(), "count", "trained numbers of the network"),
        column("gradient_bytes", pa.int64(), "byte", "what one all-reduce sums"),
        column("setup_seconds", pa.float64(), "s", "from the worker's start to the end of its warm-up"),
    ]
)


def _timeline(per: str, what: str) -> list[pa.Field]:
    """Columns that lay out a job's whole wall clock: the phases of each learner or worker, one after the other."""
    return [
        column("phase", pa.string(), "-", "set-up (from the job's start) | train | test | end (until the job's end)"),
        column("epoch", pa.int64(), "epochs", "which epoch, 1 is the first; 0 for set-up and end"),
        column(per, pa.int64(), "-", f"which {what} of the epoch, 1 is the first; 0 for other phases"),
        column("began", pa.float64(), "s", "since the job's start, when its first process was started"),
        column("seconds", pa.float64(), "s", "that it took"),
        column("images", pa.int64(), "images", "trained on meanwhile, by this learner or worker; 0 for other phases"),
    ]


def _some(schema: pa.Schema, names: str) -> list[pa.Field]:
    return [schema.field(name) for name in names.split()]


P1_HOROVOD = pa.schema(
    [
        *_some(P1_EPOCHS, "framework model device_kind learners hosts launcher allreduce"),
        column("compiled", pa.bool_(), "-", "network compiled: torch.compile, or XLA's tf.function(jit_compile=True)"),
        *_some(
            P1_EPOCHS,
            "precision batch_size effective_batch image_size threads cores gbit link_gbit link_round_trip_us repeat "
            "rank host epochs_planned warm_up_steps parameters gradient_bytes",
        ),
        *_timeline("step", "step"),
        column(
            "wait_seconds",
            pa.float64(),
            "s",
            "PyTorch: part of the step from the end of the backward pass to the end of synchronize()",
            nullable=True,
        ),
        column("loss", pa.float64(), "nat", "of this step's batch; empty for other phases", nullable=True),
    ]
)
P2_STRATEGY = pa.schema(
    [
        *_some(
            P2_EPOCHS,
            "network dataset device_kind learner strategy scaling learners workers hosts all_reduce communication base "
            "effective_batch per_learner_batch",
        ),
        column("image_size", pa.int64(), "pixels", "side: 32 is 28 padded with zeros, larger is resized bilinearly"),
        *_some(
            P2_EPOCHS,
            "learning_rate precision jit_compile steps_per_execution threads gbit link_gbit link_round_trip_us repeat "
            "worker epochs_planned whole_epochs parameters gradient_bytes",
        ),
        *_timeline("execution", "call of TensorFlow, of steps_per_execution steps"),
        column("loss", pa.float64(), "nat", "mean over the images of the last step; empty elsewhere", nullable=True),
        column(
            "test_accuracy",
            pa.float64(),
            "fraction",
            "share of the 10,000 test images classified rightly, all workers; of phase test only",
            nullable=True,
        ),
    ]
)
