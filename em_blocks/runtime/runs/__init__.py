"""A run in the database and on disk: claim, inputs, ledgers, ownership."""
