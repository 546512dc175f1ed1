"""The machine: devices, and processes that train one model together.

``group`` is what a training asks of the others (alone: nothing) and joins those that a launcher has
started, by way of ``collective`` (their messages) and ``watch`` (signs of life). ``device`` checks
names of devices, ``cores`` counts those that may be used, and ``workers`` does independent work on
them side by side.
"""
