"""The distributed runtime: ranks, collectives, order, seeds, checkpoints, stopping."""
