"""S3 through botocore: credentials from the standard AWS chain, one retry budget for whatever is asked of it.

Not through s3fs or pyarrow: the one retries by count (about 45 s), the other gives up within a second, and neither
tells a body that broke off in the middle from the end of a file in all its ways of reading. `mlim_ray.data.storage` is
the door; nothing else imports this package but the contact check and the tests.
"""
