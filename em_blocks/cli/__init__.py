"""The command line: ``em-blocks VERB CONFIG`` and the pipeline scripts."""
