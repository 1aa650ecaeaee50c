"""The errors that requests get: a status, a code for programs and a message for people, never a path or a trace."""

from starlette.exceptions import HTTPException


class ServiceError(HTTPException):
    """An answer that is not 200.

    An ``HTTPException``, because FastAPI makes others into "400" where it reads a body.

    Args:
        status: of HTTP.
        code: short and stable, for programs.
        message: what was got, what was expected, what to do.
        retry_after: seconds after which trying again makes sense.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(status, message, None if retry_after is None else {"Retry-After": str(retry_after)})
        self.code = code
