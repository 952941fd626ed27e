"""One run of a verb: its sections and model, what is kept of it in a journal, and where its result goes."""
