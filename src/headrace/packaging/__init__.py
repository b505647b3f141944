"""`headrace build`: one version of a model, as an image with no more in it than it needs."""
