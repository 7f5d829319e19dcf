"""Training of the bundled model: run file, model, mesh, optimizer, loop, checkpoints, sampling."""
