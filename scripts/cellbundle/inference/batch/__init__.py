"""Batches of images: inputs, result formats, the pipeline, and the records of finished images."""
