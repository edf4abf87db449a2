"""The command line: a thin layer over the other rooms, and the only one that prints."""
