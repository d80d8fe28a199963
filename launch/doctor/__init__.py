"""`dlfd doctor`: is this machine, and this cluster, fit to run jobs."""
