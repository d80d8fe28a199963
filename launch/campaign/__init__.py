"""Campaigns: a grid of runs as jobs, from the plan over the queue to the result."""
