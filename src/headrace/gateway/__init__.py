"""The gateway: the door for HTTP and gRPC."""
