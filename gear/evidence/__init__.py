"""The paper's findings at a scale that anyone can rerun: RESULTS.md says what is asked, how, and what came of it.

scales       how large: networks, steps, seeds, counts of images, for a laptop and for a GPU
arms         what is trained: every arm by its name, and the claims that it belongs to
queue        trains and measures each arm with each seed that has no result yet
measuring    what is measured of a run
statistics   means, spreads and paired differences over seeds
quantities   the numbers that are shown, and where in a result they stand
claims       which arms, numbers and pairs each claim is about
tables, verdicts, convergence, overview, pictures, writing
             the parts of RESULTS.md that are made of results
pilot, pace  what was decided beforehand, and seconds a step
variants     what only an arm does
"""
