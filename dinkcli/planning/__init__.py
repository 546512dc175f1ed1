"""What a run will take, before it is begun.

``work`` counts what a training will do, ``bench`` times the parts that need only rows in memory,
``calibrate`` adds reading to them, ``footprint`` counts memory; ``plan`` puts them together.
"""
