"""The glue between MONAI's engines and the bundles: one workflow, one training step, one checkpoint format."""
