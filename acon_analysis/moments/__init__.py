"""What a capture stores about inputs and outputs of layers, and how it merges."""
