"""Standalone experiment scripts and the few modules they share; each writes tidy parquet through `store`."""

from experiments.machine import settings

# An OpenMP library reads these once, when it is loaded, and binds this very process to a core. So scripts import this
# package before PyTorch, and cli.exit_status says what was taken out.
UNPINNED = settings.clear(settings.PINS)
