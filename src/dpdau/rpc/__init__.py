"""The gRPC front: the verbs of `app` as the service `dpdau.v1.Dpdau`, and nothing else.

It needs the extra `grpc` and is imported only where it is served.
"""
