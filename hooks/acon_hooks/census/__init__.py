"""The census: every operator of one forward pass is linear in the data, nonlinear, or unknown."""
