"""What a run will take, before it is begun.

``work`` counts what a training will do and hold; ``plan`` times a few parts of it and adds up.
"""
