"""The broker port and its adapters: `memory://`, `nats://`."""
