"""Everything around a run: command line, local ranks, comparisons; the library comes lazily."""
