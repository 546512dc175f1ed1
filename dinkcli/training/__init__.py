"""From rows to centres: docs/objective.md as code.

``trainer`` is the order of things: ``seeding``, ``anneal``, ``refine``, then ``passes`` over all
rows. They work on a ``sample`` of the ``rows``, which are held in memory or read anew, wide ones on
their main axes (``subspace``); ``schedule`` says how much of what. ``neighbours`` learns the map of
the metric "learned", ``capacity`` limits the sizes of clusters, and ``checkpoint`` is where a
training stands, in memory and in a file.

Read ``trainer``, ``schedule``, ``seeding``, ``anneal``, ``refine``, ``passes``.
"""
