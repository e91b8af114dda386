"""The models of papers beside the implementations that people know: parameter counts, values and gradients."""
