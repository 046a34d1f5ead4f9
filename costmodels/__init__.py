"""Cost sources for ops and training steps: by formula, or fitted to what a device measured.

``sources`` says what a cost source is, ``analytical`` counts MACs and bytes as TinyTrain does, ``model`` is the fitted
one. It learns from ``measured`` ops through ``features``, ``priors`` and ``estimators``, adds them up to steps
(``sums``), takes memory from the arena planner (``memory``) and lies on disk as ``saved`` says. ``evaluate``
and its parts judge it beside ``baselines``, which learn from its ``training_ops``; ``layers`` says where a step's cost
goes, ``report`` shows all of it on one page.

Nothing is imported here: scikit-learn and torch take seconds, and formulas need neither.
"""
