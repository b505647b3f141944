"""The objects port and its adapters: `memory://`, `file://`."""
