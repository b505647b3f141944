"""The worker: jobs in, results home."""
