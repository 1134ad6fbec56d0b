"""``em-blocks runs``: the recorded trainings."""
