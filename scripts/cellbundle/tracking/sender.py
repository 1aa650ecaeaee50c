"""The thread that sends a run while it is made."""

import logging
import threading
import time

from ..addresses import redact
from .names import is_remote
from .server import reason
from .spool import Spool
from .upload import Upload

logger = logging.getLogger(__name__)

INTERVAL = 2.0  # seconds between two requests
LONGEST_WAIT = 30.0  # seconds between two attempts while the server is down
PATIENCE, LOCAL_PATIENCE, FILE_PATIENCE = 8.0, 60.0, 120.0  # seconds without an answer, at the end of a run


class Sender(threading.Thread):
    """Sends the spool of a run again and again until ``finish``, then once more, and gives the spool back.

    Args:
        spool: locked by this process.
        upload: of that spool.
    """

    def __init__(self, spool: Spool, upload: Upload) -> None:
        super().__init__(name="tracking", daemon=True)
        self.spool, self.upload = spool, upload
        self._wake, self._ending = threading.Event(), False
        self._failures, self._reason, self._warned = 0, "no answer yet", False

    def run(self) -> None:
        """Until the end of the run."""
        try:
            while True:
                ending = self._ending
                self._try()
                if ending:
                    return
                wait = min(LONGEST_WAIT, 2.0 ** min(self._failures - 1, 9)) if self._failures else INTERVAL
                if not self._ending:
                    self._wake.wait(wait)
        finally:
            self.spool.close(keep=not self.spool.is_done)

    def _try(self) -> None:
        try:
            self.upload.send()
        except Exception as error:  # noqa: BLE001  (whatever happens out there, the training goes on)
            self._failures += 1
            self._reason = reason(error, self.upload.uri)
            log = logger.debug if self._warned or self._ending else logger.warning
            log(
                "tracking: %s is not reachable or refuses: %s. The training goes on; what is logged is kept in %s and "
                "sent when that works again",
                redact(self.upload.uri),
                self._reason,
                self.spool.folder,
            )
            self._warned = True
        else:
            if self._failures and self._warned:
                logger.info("tracking: %s is back, everything is sent", redact(self.upload.uri))
            self._failures = 0

    def finish(self) -> None:
        """Send the rest; leave it in the spool if the server does not answer for some seconds."""
        self.upload.progress = time.monotonic()
        self._ending = True
        self._wake.set()
        while self.is_alive() and time.monotonic() - self.upload.progress < self._patience():
            self.join(0.05)
        if self.is_alive() or not self.spool.is_done:
            address = redact(self.upload.uri)
            logger.warning(
                "tracking: %s does not have all of the run (%s); send the rest with `cellbundle sync-runs %s%s`",
                address,
                self._reason,
                self.spool.folder,
                "" if address == self.upload.uri else " --tracking-uri URI",  # secrets are not kept
            )

    def _patience(self) -> float:
        if self.upload.sends_file:
            return FILE_PATIENCE
        return PATIENCE if is_remote(self.upload.uri) else LOCAL_PATIENCE
