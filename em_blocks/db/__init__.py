"""MongoDB: the only place of em_blocks that talks to it."""
