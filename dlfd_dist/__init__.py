"""dlfd-dist: distributed machine unlearning by Distribution-Level Feature Distancing."""

__version__ = "0.1.0"

__all__ = ["__version__"]
