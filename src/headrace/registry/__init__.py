"""The registry port, its adapters (`file://`, `mlflow://`), what may lie in a version (`inspect`),
and the versions that this machine keeps (`kept`)."""
