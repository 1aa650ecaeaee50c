"""cellbundle: the shared core of MONAI bundles for 2-D cell and nucleus instance segmentation."""

__version__ = "0.1.0"
