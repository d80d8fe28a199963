"""Results: finished directories become tables, choices and pages."""
