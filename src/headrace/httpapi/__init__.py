"""What the HTTP faces of the house share: reading what is small, answering in JSON, lists."""
