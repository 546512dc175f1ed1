"""The command line. It parses, calls one core function, and shows the result.

Nothing here imports torch or pyarrow at the top, so that help and usage errors are quick.
"""

import os

from dinkcli.processes.cores import cores_are_shared, usable_cores

# Threads that wait for work by spinning starve each other on a shared machine; those that sleep at
# once are slow to wake on a quiet one (docs/LOG.md). Has to be set before torch is loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "0" if cores_are_shared() else "3000"
# torch does not know quotas of containers, and more threads than they are worth stop each other.
if usable_cores() < (os.cpu_count() or 1):
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
# Large pages where the system gives them: to be handed millions of small ones takes longer than to
# fill them with rows.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from dinkcli.cli.app import app, main

__all__ = ["app", "main"]
