"""Applications: build, fit, train, look, export, and the `mmdata` command. Exports nothing."""
