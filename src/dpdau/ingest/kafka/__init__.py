"""Events from and to Kafka; confluent-kafka (the extra `kafka`) is loaded by who needs it."""
