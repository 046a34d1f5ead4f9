"""The verbs of ``profile``, one file each."""
