"""What the OpenAPI document says beyond the types: every status with an example."""

from typing import Any

DESCRIPTION = "Finds and measures single cells and nuclei in 2-D microscopy images."

ERRORS = {
    400: ("unreadable_image", "the image cannot be decoded; export it again", "What was sent cannot be read."),
    401: ("unauthorised", "a valid token is needed: Authorization: Bearer TOKEN", "The token is missing or wrong."),
    404: ("not_found", "there is no such image", "No image below a root; the answer is the same for every reason."),
    403: (
        "cross_site",
        "pages of other sites may not use this service unless it has a token",
        "Without a token: the name in `Host` is not allowed, or a page of another site sent the request.",
    ),
    408: ("too_slow", "the request did not arrive in time", "The client is too slow."),
    409: (
        "foreign_mask",
        "beside the image is a mask that this service did not write; move it away",
        "A mask that the service did not write is in the way.",
    ),
    413: ("too_many_pixels", "the image has more pixels than this service takes; crop it", "Too many bytes or pixels."),
    415: ("wrong_type", "what was sent is no image by its content", "Not a PNG, JPEG, BMP or TIFF image."),
    422: ("invalid", "query.diameter: Input should be greater than or equal to 1", "A parameter is wrong."),
    500: ("crashed", "the worker ended while it worked on the image", "The image could not be segmented."),
    503: (
        "busy",
        "too many requests wait; try again later",
        "Full or not ready; `Retry-After` says when to try again.",
    ),
    504: ("timed_out", "the image took too long; crop it, or give a larger diameter", "The work was stopped."),
}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
OUTLINES = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[4, 2], [7, 2], [7, 5], [4, 5], [4, 2]]]},
            "properties": {"objectType": "detection", "measurements": {"area": 9}},
        }
    ],
}
MEASURED = {
    "n": 1,
    "size": [520, 704],
    "bundle": "cell_unet",
    "diameter": 31.4,
    "magnification": 0.57,
    "seconds": 0.61,
    "measurements": [{"label": 1, "score": 0.97, "y": 3.0, "x": 5.0, "area": 9}],
}
MEASURED_SCHEMA = {
    "type": "object",
    "required": ["n", "size", "bundle", "diameter", "magnification", "seconds", "measurements"],
    "properties": {
        "n": {"type": "integer", "minimum": 0, "description": "number of cells"},
        "size": {"type": "array", "items": {"type": "integer"}, "description": "height and width in pixels"},
        "bundle": {"type": "string"},
        "diameter": {"type": ["number", "null"], "description": "typical diameter in pixels, if given or found"},
        "magnification": {"type": "number", "description": "on top of the bundle's own scale"},
        "seconds": {"type": "number", "description": "of the work, without waiting"},
        "measurements": {"type": "array", "items": {"type": "object"}, "description": "one record a cell"},
    },
}
BUNDLE = {
    "name": "cell_unet",
    "version": "0.3.0",
    "description": "A small residual U-Net",
    "options": {"diameter": 18.0, "finds_diameter": True},
    "device": "cpu",
    "weights": {"file": "models/model.pt", "sha256": "9f2c…"},
}
BINARY = {"schema": {"type": "string", "format": "binary"}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers that are errors, each with an example."""
    answers: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        code, message, meaning = ERRORS[status]
        example = {"error": {"code": code, "message": message}}
        answers[status] = {
            "description": meaning,
            "content": {"application/json": {"schema": ERROR_SCHEMA, "example": example}},
        }
        if status == 503:
            answers[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return answers


def _example(value: Any, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": schema, "example": value}}
    return {200: {"description": "Successful Response", "content": content}}


HEALTH = _example({"status": "alive"}, {"type": "object"})
READY = _example({"status": "ready"}, {"type": "object"}) | errors(503)
BUNDLES = _example([BUNDLE], {"type": "array", "items": {"type": "object"}}) | errors(401, 403, 503)
METRICS = errors(401, 403) | {
    200: {
        "description": "Successful Response",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "cellbundle_queue_length 0.0\n"}},
    }
}
SEG_MASK = errors(*ERRORS)
SEGMENT = errors(*(status for status in ERRORS if status not in (404, 409))) | {
    200: {
        "description": "The cells, in the format that was asked for.",
        "headers": {
            "X-Cell-Count": {"schema": {"type": "integer"}, "description": "number of cells"},
            "X-Cell-Diameter": {"schema": {"type": "number"}, "description": "typical, in pixels; if given or found"},
            "X-Magnification": {"schema": {"type": "number"}, "description": "on top of the bundle's own scale"},
            "X-Image-Width": {"schema": {"type": "integer"}, "description": "pixels"},
            "X-Image-Height": {"schema": {"type": "integer"}, "description": "pixels"},
            "X-Seconds": {"schema": {"type": "number"}, "description": "of the work, without waiting"},
        },
        "content": {
            "application/json": {"schema": MEASURED_SCHEMA, "example": MEASURED},
            "application/geo+json": {"schema": {"type": "object"}, "example": OUTLINES},
            "image/tiff": BINARY,
            "image/png": BINARY,
            "image/jpeg": BINARY,
        },
    }
}
SEGMENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
            "image/png": BINARY,
            "image/jpeg": BINARY,
            "image/bmp": BINARY,
            "image/tiff": BINARY,
        },
    }
}
