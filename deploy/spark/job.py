"""What spark-submit runs: the dpdau command, on the Spark that it was submitted to."""

import os

from pyspark.sql import SparkSession

from dpdau.cli import main

spark = SparkSession.builder.appName("dpdau").getOrCreate()
os.environ["SPARK_MASTER"] = spark.conf.get("spark.master")  # noqa: TID251
main()
