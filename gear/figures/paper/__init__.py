"""The figures of the paper, drawn from the files that runs and evaluations leave: no model, no torch."""
