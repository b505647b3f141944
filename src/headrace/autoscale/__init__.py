"""How many: observe -> decide -> apply. What decides is pure, and gives its reason."""
