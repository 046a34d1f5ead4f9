"""Cost sources for ops and training steps: by formula, or fitted to what a device measured.

``sources`` says what a cost source is, ``analytical`` counts MACs and bytes as TinyTrain does, ``model`` is the fitted
one. It learns from ``measured`` ops through ``features``, ``priors`` and ``estimators``, adds them up to steps
(``sums``), takes memory from the arena planner (``memory``) and lies on disk as ``saved`` says. ``accuracy``,
``evaluate`` and ``plots`` judge it.

Nothing is imported here: scikit-learn and torch take seconds, and formulas need neither.
"""
