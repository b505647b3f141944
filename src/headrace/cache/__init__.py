"""The cache port and its adapters: `memory://`, `redis://`."""
