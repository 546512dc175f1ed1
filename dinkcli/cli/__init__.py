"""The command line. It parses, calls one core function, and shows the result.

Nothing here imports torch or pyarrow at the top, so that help and usage errors are quick.
"""

import os

# Threads that wait for work by spinning starve each other on a shared machine: a training of half a
# second beside three busy processes took a minute. Has to be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# They may spin for the 10 us or so that lie between two operations, though: being woken for each
# takes 50.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from dinkcli.cli.app import app, main

__all__ = ["app", "main"]
