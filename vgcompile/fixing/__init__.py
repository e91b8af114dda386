"""Changes to a model file that let its gradient through: tried on its text, judged by the analysis, ranked, written.

    text -- sheet --> tree of the text -- remedies --> another text -- build, analyze --> trial -- advice --> ranked

A remedy edits the text and nothing else, so that what is shown is what is written, comments and all.
"""
