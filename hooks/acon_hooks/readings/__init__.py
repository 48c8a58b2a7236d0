"""Reading β of every layer in a forward pass, each reading proved."""
