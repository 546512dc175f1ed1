"""What a training leaves behind: the model file, and what other tools make of it.

``model`` is the file, ``centers`` reads centres of other tools, ``matching`` keeps cluster ids
through a retrain, ``export`` writes models for other tools. Needs no torch to read a model.
"""
