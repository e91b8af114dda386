"""Models as their exporters write them: gradients checked against PyTorch, sizes and compile time beside the forward graph."""
