"""Networks, step plans, training steps and the programs a device runs."""
