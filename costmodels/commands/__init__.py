"""The verbs of ``costmodels``, one file each."""
