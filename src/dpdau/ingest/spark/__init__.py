"""Raw events that Spark reads, as rows of the lake: decoded and named as everywhere, by its
executors."""
