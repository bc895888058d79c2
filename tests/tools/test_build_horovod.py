"""What the build of Horovod says when it fails."""

from __future__ import annotations

import pytest

from tools.build_horovod import cause

WARNING = "          calls to avoid build errors in the future.\n"
PIP = "  error: subprocess-exited-with-error\n"
LOST = "  gmake[2]: *** [horovod/torch/CMakeFiles/pytorch.dir/build.make:79: common.cc.o] Error 127\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (WARNING + "  a.cc:12: error: 'x' was not declared\n" + PIP, "a.cc:12: error: 'x' was not declared"),
        (WARNING + "  nccl.h:1: fatal error: no cuda.h\n" + PIP, "nccl.h:1: fatal error: no cuda.h"),
        (WARNING + "  CMake Error at CMakeLists.txt:1:\n" + LOST, "CMake Error at CMakeLists.txt:1:"),
        (WARNING + "  /bin/sh: 1: /opt/horovod-cxx: not found\n" + LOST, "/bin/sh: 1: /opt/horovod-cxx: not found"),
        (WARNING + LOST + PIP, LOST.strip()),
        (WARNING, "the log doesn't say why"),
    ],
)
def test_the_cause_is_the_first_error_and_no_warning(log: str, said: str) -> None:
    assert cause(log) == said
