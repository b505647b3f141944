"""The orchestrator port and its adapters (`local://`, `nomad://`, `kubernetes://`)."""
