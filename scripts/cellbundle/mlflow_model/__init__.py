"""A bundle as an MLflow model: how it is registered, and how it answers images."""

from .register import LoggedBundle, log_model

__all__ = ["LoggedBundle", "log_model"]
