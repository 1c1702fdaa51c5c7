"""What `tests.forked` imports before the first fork: all that the command imports when it serves, and later."""

import gc

import tollgate.app.serve
import tollgate.log.import_embedded
import tollgate.log.import_kafka
import tollgate.sandbox.server
import tollgate.sinks.reconcile
import tollgate.sinks.replay  # noqa: F401

gc.collect()
gc.freeze()  # no process looks through these again
