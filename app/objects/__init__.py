"""The object side: keys, Parquet files, manifests, and the stores that hold them for good.

`layout`, `manifest`, `probe` and `s3_errors` are pure; `parquet` is the only importer of pyarrow and
`bucket` of boto3, both only when they are used, so that a stream worker never loads them. Nothing here deletes an
object: no store has a method for it, and an S3 policy for Collector needs no Delete.
"""
