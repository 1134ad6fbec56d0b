"""Files and key-value stores: places, whole files, ledgers, signatures."""
