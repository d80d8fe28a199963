"""The verbs of the command line: one file reads its words, prints, and returns an exit status."""
