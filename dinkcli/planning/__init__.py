"""What a run will take, before it is begun.

``work`` counts what a training will do, ``calibrate`` times its parts on a few rows, ``footprint``
counts memory; ``plan`` puts them together.
"""
