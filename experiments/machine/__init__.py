"""The machine that runs a job: its cores, GPUs, processes and emulated hosts."""
