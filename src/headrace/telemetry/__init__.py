"""The house's own logs and metrics. (What judges the models is the monitor, not this.)"""
