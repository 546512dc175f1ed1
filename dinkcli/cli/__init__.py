"""The command line. It parses, calls one core function, and shows the result.

Nothing here imports torch or pyarrow at the top, so that help and usage errors are quick.
"""

import os

from dinkcli.processes.cores import cores_are_shared, usable_cores

_shared_before = cores_are_shared()
# torch does not know quotas of containers, and more threads than they are worth stop each other.
if usable_cores() < (os.cpu_count() or 1):
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
# Large pages where the system gives them: to be handed millions of small ones takes longer than to
# fill them with rows.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from dinkcli.cli.app import app, main  # noqa: E402  (between the two looks at the cores)

# Threads that wait for work by spinning starve each other on a shared machine; those that sleep at
# once are slow to wake on a quiet one (docs/LOG.md). Who runs for a moment does not count. Has to
# be set before torch is loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "0" if _shared_before and cores_are_shared() else "3000"

__all__ = ["app", "main"]
