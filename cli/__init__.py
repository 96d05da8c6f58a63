"""The command line: arguments in, calls into `spacelite`, tables and progress bars out."""
