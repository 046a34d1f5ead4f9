"""Measuring: which ops, in what order, how often; verification before timing; statistics; resume."""
