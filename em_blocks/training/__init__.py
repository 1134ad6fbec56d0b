"""The one trainer: setups, gunpowder graphs, validation, checkpoints, run records."""
