"""Who was active: the turnstile, its stores, and erasure."""
