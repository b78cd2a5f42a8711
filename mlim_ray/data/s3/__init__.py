"""S3 over the session of s3fs: credentials from the standard AWS chain, one retry budget for whatever is asked of it.

s3fs's own calls retry by count (about 45 s) and pyarrow's give up within a second, so the API is asked through s3fs's
client and the retries are ours. `mlim_ray.data.storage` is the door; nothing else imports this package but the contact
check and the tests.
"""
