"""File formats of other programs: COCO, GeoJSON, ImageJ, Kaggle, YOLO, cellpose and mask files."""
