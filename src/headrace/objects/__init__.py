"""The objects port, its adapters (`memory://`, `file://`, `s3://`, `gs://`, `az://`), and what may
stand around one: `Whole` or `Chained` against damage and absence, `Sealed` against readers."""
