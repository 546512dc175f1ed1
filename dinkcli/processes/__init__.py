"""The machine: devices, and processes that train one model together.

``group`` is what a training asks of the others (alone: nothing), ``join`` finds them, by way of
``launcher`` (what the environment says), ``collective`` (their messages) and ``watch`` (signs of
life). ``device`` checks names of devices.
"""
