"""The limits that the house of these tests is given."""

MAX_BODY = 2_000_000
MAX_MANY = 32
