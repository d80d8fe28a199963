"""Audits: what leaks out of models, judged over many of them, and what leaks between sets."""
