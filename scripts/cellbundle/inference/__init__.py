"""Inference: tiles, the network, the decoder, and batches of images."""
