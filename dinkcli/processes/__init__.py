"""Devices (``device``), work side by side (``workers``, as many as ``cores``), and processes that
train one model together: a ``group`` (alone: nothing is asked of it), or those that a launcher has
started (``collective``).
"""
