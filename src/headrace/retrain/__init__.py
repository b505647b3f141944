"""The role that trains models again: by schedule, by alarm, within a budget."""
