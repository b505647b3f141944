"""What a model carries on this machine: load through a whole house, and what is read from it."""
