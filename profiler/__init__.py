"""Ops and workloads, the link to devices, measuring, energy, and the store on disk."""
