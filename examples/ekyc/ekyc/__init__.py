"""Electronic know-your-customer checks: face match, face liveness, reading of documents."""
