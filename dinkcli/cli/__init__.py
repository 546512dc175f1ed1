"""The command line. It parses, calls one core function, and shows the result.

Nothing here imports torch or pyarrow at the top, so that help and usage errors are quick.
"""

import os

from dinkcli.processes.cores import usable_cores

# Threads that wait for work by spinning starve each other on a shared machine, and those that sleep
# at once are slow to wake: a short spin loses little either way (docs/LOG.md). Has to be set before
# torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# torch does not know quotas of containers, and more threads than they are worth stop each other.
if usable_cores() < (os.cpu_count() or 1):
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
# Large pages where the system gives them: to be handed millions of small ones takes longer than to
# fill them with rows.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from dinkcli.cli.app import app, main

__all__ = ["app", "main"]
