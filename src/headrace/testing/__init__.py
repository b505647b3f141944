"""What Headrace tests itself with, shipped: one exam per port, and a whole house for tests."""
