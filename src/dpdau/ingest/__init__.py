"""Raw event in, pseudonymous event stored, exactly once."""
