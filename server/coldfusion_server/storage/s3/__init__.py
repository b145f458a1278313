"""Objects in an S3 bucket: Amazon's, MinIO, Ceph, and whatever speaks as they do."""
