"""Statistics: arrays and frames in, frames out. Nothing here knows a run."""
