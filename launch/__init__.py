"""Everything around a run: the command line, local ranks, comparisons. Imports the library lazily."""
