"""The activity store in a lake of Parquet files; pyspark (the extra `spark`) is loaded by need."""
