"""Jobs: what they are asked for, what they do, and what SLURM says of them."""
