"""A real cluster on this one machine: Slurm, network namespaces, MongoDB with a password."""
