"""The sums in C++, compiled once for each machine."""
