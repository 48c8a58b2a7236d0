"""How linear blocks are: any modules, the repeated blocks of a network, and the whole network."""
