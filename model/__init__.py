"""The network: SyNCRec, its losses and the graph that is exported. Tensors in, tensors out; imports torch only."""
