"""Array functions: numpy in, numpy out; no paths, no scheduler, no database."""
