"""From rows to centres: docs/objective.md as code.

``trainer`` is the order of things: ``seeding``, ``anneal``, ``refine`` (with ``split``), then
``passes`` over all rows. They work on a ``sample`` of the ``rows``, which are held in memory or
read anew, wide ones on their main axes (``subspace``); ``schedule`` says how much of what.
``literal`` is the paper's own objective by gradient descent; ``neighbours`` learns the map of the
metric "learned", ``capacity`` limits the sizes of clusters. ``progress`` is where a training
stands, ``checkpoint`` the file of it, ``result`` the model that it leaves.

Read ``trainer``, ``schedule``, ``seeding``, ``anneal``, ``refine``, ``passes``.
"""
