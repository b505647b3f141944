"""What judges the models from samples of their calls, and from labels that come later."""
