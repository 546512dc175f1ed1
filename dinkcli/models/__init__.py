"""What a training leaves behind: the model file, and what other tools make of it.

``model`` is what a model is and writes, ``file`` reads it from anywhere, ``centers`` reads centres
of other tools, ``matching`` keeps cluster ids through a retrain, ``export`` writes models for other
tools. Needs no torch to read a model.
"""
