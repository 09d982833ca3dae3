"""The command line: options and printing. Everything else is in the library."""
