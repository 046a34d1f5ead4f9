"""Energy: recordings of current, voltage and trigger, cut into windows and joined with what the device says it ran."""
