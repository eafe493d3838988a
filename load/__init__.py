"""Load on a service: scenarios for Locust, a service to run them on, and what came out."""
