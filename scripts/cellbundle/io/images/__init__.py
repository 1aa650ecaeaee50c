"""Read images: TIFF, OME-TIFF, Zarr and raster files, their axes, pixel sizes, orientation and missing values."""
