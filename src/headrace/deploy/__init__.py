"""Which version: watch -> plan -> rollout -> apply. What decides is pure, and gives its reason."""
