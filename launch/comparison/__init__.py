"""Comparisons: which runs, how they are tuned, run and put side by side."""
