"""Many boards at once: the file that lists them, a process for each, one display for all."""
