"""The verbs of ``tinytrain``, one file each."""
