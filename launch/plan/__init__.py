"""Plans: which runs there are, checked, with their places, shapes and costs; nothing is written."""
