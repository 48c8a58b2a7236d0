"""A network over a data set, written to disk: resumable, shared by processes, repeatable."""
