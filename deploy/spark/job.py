"""What spark-submit runs: the dpdau command, on the Spark that it was submitted to."""

import os

from pyspark import SparkConf, SparkContext

from dpdau.cli import main

# Only its JVM knows what spark-submit was told; no Spark is started for that.
SparkContext._ensure_initialized()
os.environ["SPARK_MASTER"] = SparkConf().get("spark.master", "local[*]")  # noqa: TID251
main()
