"""HTTP words for the verbs."""
