"""From rows to centres: docs/objective.md as code.

Read ``trainer``, the order of things, then ``schedule``, ``seeding``, ``refine`` and ``passes``.
"""
